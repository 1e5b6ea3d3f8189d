"""placeholder"""
def add_engines(recipe, bundle, advance): pass
