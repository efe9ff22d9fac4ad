"""Times an artifact on the machine that it runs on: start-up, pictures, steps, memory and how it drifts.

`worker` paints in a process of its own, `subject` asks it and watches it, `measure` does the run, `results` keeps every
number in one file, and `report` shows nothing that is not in that file. `machine`, `power` and `processor` say where it
ran.
"""
