//! A simulated ContainerRuntime: scripted containers, nodes by the thousand.
