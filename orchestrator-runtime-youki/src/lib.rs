//! ContainerRuntime on youki's libcontainer, without a daemon.
