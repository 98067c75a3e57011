//! The scheduler: queue, snapshot, plugins, bind.
