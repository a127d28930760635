def defects():
    return []
