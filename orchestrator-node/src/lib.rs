//! The node agent: pod workers, volumes, status, logs and exec.
