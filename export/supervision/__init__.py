"""From known truth to words: questions and answers in ViDA-UGC's formats, for every task."""
