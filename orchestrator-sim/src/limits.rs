//! Every bound of this crate, with its unit.

use std::time::Duration;

/// The longest time that a message usually takes.
pub(crate) const USUAL_DELAY: Duration = Duration::from_millis(4);
/// The longest time that a message takes now and then.
pub(crate) const LONG_DELAY: Duration = Duration::from_millis(900);
/// One message in so many takes long.
pub(crate) const LONG_DELAY_ONE_IN: u64 = 64;
/// Events of a watch that arrive together.
pub(crate) const BUNDLE_EVENTS: usize = 64;
/// How often a world that is waited for is looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(10);
/// How long a settled world has to be silent before it is believed: longer than any pause before something broken is tried
/// again.
pub(crate) const CALM: Duration = Duration::from_secs(90);
/// How often a cluster for tests is looked at while it is waited for.
pub(crate) const GLANCE: Duration = Duration::from_secs(1);
/// How long a cluster for tests may take to fall silent.
pub(crate) const SETTLE: Duration = Duration::from_secs(3600);
/// Changes that are shown of a cluster that does not.
pub(crate) const SHOWN_CHANGES: usize = 10;
/// How long is waited for timers of tokio where the world has none: longer than any that a sound program sets.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30 * 24 * 3600);
