"""The main job from end to end: quantize, push, run, compare, judge.  Puts the other rooms together."""
