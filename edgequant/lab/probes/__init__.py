"""What is measured in a device session beside the outputs: one file each, behind `lab.take.Probe`."""
