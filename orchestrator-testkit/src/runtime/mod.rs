//! The contract of a [`ContainerRuntime`](orchestrator_core::runtime::ContainerRuntime), as plain functions: every call can be
//! repeated, and an agent that comes back finds everything.
//!
//! [`runtime_contract!`](crate::runtime_contract) makes a test of each; a [`Workbench`] says how programs are written for the
//! runtime, and what it lacks.

mod clusters;
mod events;
mod images;
mod interruptions;
mod lives;
mod logs;
mod names;
mod removal;
mod restarts;
mod sessions;
mod stage;
mod workbench;

pub use clusters::{clusters_never_meet, many_sandboxes_at_once};
pub use events::events_tell_of_every_change;
pub use images::{images_are_there_or_not, images_come_and_go, images_in_use_stay};
pub use interruptions::calls_may_be_given_up;
pub use lives::{
    a_container_lives_once, a_polite_container_ends_in_its_own_way, a_start_that_fails_is_an_end, exit_codes_are_kept,
    memory_that_runs_out_is_told, no_grace_is_a_kill, stopping_kills_when_the_grace_is_over,
    usage_is_of_running_containers,
};
pub use logs::{logs_are_cut_as_asked, logs_are_followed_to_the_end, logs_keep_lines_in_order};
pub use names::names_and_labels_of_any_form;
pub use removal::{removal_leaves_nothing, stopped_sandboxes_stay_stopped, unknown_names_are_told};
pub use restarts::{
    a_new_instance_carries_on, a_new_instance_finds_everything, every_call_can_be_repeated,
    what_happens_meanwhile_is_seen_afterwards,
};
pub use sessions::{
    a_command_that_is_not_there_is_told, commands_end_with_their_codes, commands_need_a_running_container,
    input_reaches_commands,
};
pub use workbench::{Command, Lack, Program, Workbench};

/// A test for each promise of a container runtime: name a module, a harness (`simulated` or `real`) and how to make a
/// [`Workbench`](crate::runtime::Workbench).
///
/// ```
/// use std::sync::Arc;
///
/// use orchestrator_core::runtime::{ContainerConfig, ContainerRuntime};
/// use orchestrator_testkit::{
///     harness::Env,
///     runtime::{Command, Program, Workbench, container},
/// };
///
/// /// How programs are written for a runtime whose images have a shell.
/// struct Shell(Arc<dyn ContainerRuntime>);
///
/// impl Workbench for Shell {
///     fn runtime(&self) -> Arc<dyn ContainerRuntime> {
///         self.0.clone()
///     }
///
///     fn container(&self, name: &str, program: &Program) -> ContainerConfig {
///         let line = match program {
///             Program::Exit { after, code } => format!("sleep {}; exit {code}", after.as_secs_f32()),
///             Program::Print { lines, pause } => {
///                 let print = |line| format!("echo '{line}'; sleep {}; ", pause.as_secs_f32());
///                 lines.iter().map(print).collect()
///             }
///             Program::Polite { code } => format!("trap 'exit {code}' TERM; echo ready; while :; do sleep 0.1; done"),
///             Program::Deaf => "trap '' TERM; echo ready; while :; do sleep 0.1; done".to_owned(),
///             Program::Hungry => "exec tail /dev/zero".to_owned(),
///             Program::Missing => return container(name, "busybox", &["/no/such/program"]),
///         };
///         let mut config = container(name, "busybox", &["sh", "-c", &line]);
///         config.resources.memory_limit_bytes = (*program == Program::Hungry).then_some(32 << 20);
///         config
///     }
///
///     fn command(&self, command: &Command) -> Vec<String> {
///         let words: &[&str] = match command {
///             Command::Exit(code) => &["sh", "-c", &format!("exit {code}")],
///             Command::Print(text) => &["echo", text],
///             Command::Echo => &["cat"],
///             Command::Missing => &["no-such-program"],
///         };
///         words.iter().map(ToString::to_string).collect()
///     }
///
///     fn missing_image(&self) -> String {
///         "nobody.invalid/nothing:1".to_owned()
///     }
/// }
/// # fn my_runtime(env: &Env) -> Arc<dyn ContainerRuntime> {
/// #     let _ = env;
/// #     unimplemented!()
/// # }
///
/// // In a file of tests.
/// orchestrator_testkit::runtime_contract!(mine, real, async |env: &Env| Shell(my_runtime(env)));
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! runtime_contract {
    // Hands the names of all cases to a macro of the caller's, for tests that have a harness of their own.
    (@names $callback:ident) => {
        $crate::runtime_contract!(@all @call $callback);
    };
    (@call $callback:ident; $($case:ident),+) => {
        $callback!($($case),+);
    };
    (@all $($then:tt)*) => {
        $crate::runtime_contract!($($then)*;
            a_container_lives_once, exit_codes_are_kept, a_polite_container_ends_in_its_own_way,
            stopping_kills_when_the_grace_is_over, no_grace_is_a_kill, a_start_that_fails_is_an_end,
            usage_is_of_running_containers, memory_that_runs_out_is_told,
            every_call_can_be_repeated, a_new_instance_finds_everything, a_new_instance_carries_on,
            what_happens_meanwhile_is_seen_afterwards,
            removal_leaves_nothing, stopped_sandboxes_stay_stopped, unknown_names_are_told,
            logs_keep_lines_in_order, logs_are_cut_as_asked, logs_are_followed_to_the_end,
            commands_end_with_their_codes, input_reaches_commands, a_command_that_is_not_there_is_told,
            commands_need_a_running_container,
            events_tell_of_every_change,
            images_are_there_or_not, images_come_and_go, images_in_use_stay,
            many_sandboxes_at_once, clusters_never_meet, names_and_labels_of_any_form, calls_may_be_given_up
        );
    };
    (@cases $module:ident, $harness:ident, $make:expr; $($case:ident),+) => {
        mod $module {
            #[allow(unused_imports, reason = "what makes a workbench may need nothing of what is around")]
            use super::*;
            $(
                #[test]
                fn $case() {
                    $crate::harness::$harness(stringify!($case), $make, |workbench, env| {
                        Box::pin($crate::runtime::$case(workbench, env))
                    });
                }
            )+
        }
    };
    ($module:ident, $harness:ident, $make:expr) => {
        $crate::runtime_contract!(@all @cases $module, $harness, $make);
    };
}

pub use stage::container;
