"""Stand-ins for devices and servers that tests need: real programs, private to one test run."""
