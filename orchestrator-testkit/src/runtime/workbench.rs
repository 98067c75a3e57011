//! What a case needs of whoever implements a runtime.

use std::{sync::Arc, time::Duration};

use orchestrator_core::runtime::{ContainerConfig, ContainerRuntime};

/// A runtime on a state of its own, and how programs are written for it.
pub trait Workbench: Send + Sync {
    /// The runtime. Each call makes another instance on the same state, as an agent does that starts again.
    fn runtime(&self) -> Arc<dyn ContainerRuntime>;

    /// A container of this name that does this. [`container`](super::container) is a beginning.
    fn container(&self, name: &str, program: &Program) -> ContainerConfig;

    /// A command for [`ContainerRuntime::exec`] that does this in any container of this workbench.
    fn command(&self, command: &Command) -> Vec<String>;

    /// The name of an image that cannot be had.
    fn missing_image(&self) -> String;

    /// The name of another image that [`Self::container`]'s programs run in: one that is not here yet, can be had, and can be
    /// removed. None where all images are there from the start.
    fn spare_image(&self) -> Option<String> {
        None
    }

    /// The runtime of another cluster on the same machine, whose containers of [`Self::container`] are written in the same way
    /// and whose images are here. None where a machine has one cluster.
    fn neighbour(&self) -> Option<Arc<dyn ContainerRuntime>> {
        None
    }

    /// How many sandboxes the machine holds at once.
    fn crowd(&self) -> usize {
        100
    }

    /// What the runtime does not do, or the workbench cannot show.
    fn lacks(&self) -> &[Lack] {
        &[]
    }

    /// A time that is long for the runtime, and short for whoever waits.
    fn moment(&self) -> Duration {
        Duration::from_millis(300)
    }
}

/// What the program of a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// It ends by itself.
    Exit {
        /// After this time.
        after: Duration,
        /// With this code.
        code: i32,
    },
    /// It writes lines to standard output, and ends with code 0.
    Print {
        /// The lines, of letters, digits and spaces.
        lines: Vec<String>,
        /// How long it waits after each of them.
        pause: Duration,
    },
    /// It writes the line `ready`, and runs until it gets the stop signal, whereupon it ends with this code.
    Polite {
        /// The code.
        code: i32,
    },
    /// It writes the line `ready`, and runs whatever signal it gets.
    Deaf,
    /// It takes more memory than its container's limit allows.
    Hungry,
    /// There is no such program.
    Missing,
}

/// What a command inside of a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// It ends with this code: 0 or 3.
    Exit(i32),
    /// It writes this word to standard output: `hello`.
    Print(&'static str),
    /// It copies standard input to standard output until the input's end.
    Echo,
    /// There is no such command.
    Missing,
}

/// What a runtime may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Programs that are not there are not noticed.
    StartFailures,
    /// Commands that are not there are not noticed.
    MissingCommands,
    /// Usage is not measured.
    Usage,
    /// Limits of memory are not kept, or nobody tells who exceeded them.
    MemoryLimits,
    /// Times of log lines are those of the second they are in.
    LogTimes,
}
