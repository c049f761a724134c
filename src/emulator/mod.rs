//! AWS HealthImaging on this machine, for demos and tests.
