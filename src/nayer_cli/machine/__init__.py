"""The machine: devices, precision, random generators, the processes of a job, and signals."""
