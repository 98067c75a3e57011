//! A simulated `ContainerRuntime`: scripted containers, nodes by the thousand.
//!
//! Start at [`SimMachine`]: it holds sandboxes, containers and images as a machine would, and hands out
//! [`SimRuntime`]s, the runtime as an agent sees it. Drop a runtime and take a new one: everything is still there,
//! as after `kill -9` of an agent. What a container does is said by a [`Script`], chosen by image, container name,
//! command or annotation. Time is the `Env`'s, so the same code runs in virtual and in real time.

mod http_answer;
mod limits;
mod logs;
mod machine;
mod runtime;
mod script;
mod state;

pub use machine::{MachineConfig, SimMachine, Verb};
pub use runtime::SimRuntime;
pub use script::{ExecAnswer, ImageScript, Matcher, OnStop, PortAnswer, SCRIPT_ANNOTATION, Script, ScriptError};
