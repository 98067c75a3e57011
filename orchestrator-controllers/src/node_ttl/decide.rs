//! How long nodes may use what they have read, by the size of the cluster.
//!
//! Upstream: `pkg/controller/ttl`.

/// Nodes from and to which a time holds, and the time in seconds. The ranges overlap, so that a node more or less does not
/// change all nodes each time.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// Which step holds for a number of nodes after another one did.
pub(super) fn step(before: usize, nodes: usize) -> usize {
    let mut step = before.min(STEPS.len() - 1);
    while nodes > STEPS[step].1 {
        step += 1;
    }
    while nodes < STEPS[step].0 {
        step -= 1;
    }
    step
}

/// The time of a step, as the annotation has it.
pub(super) fn seconds(step: usize) -> String {
    STEPS[step.min(STEPS.len() - 1)].2.to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_step_holds_on_both_sides_of_its_bound() {
        for (before, nodes, expected) in
            [(0, 1, "0"), (0, 100, "0"), (0, 101, "15"), (1, 90, "15"), (1, 89, "0"), (0, 5000, "300"), (4, 1, "0")]
        {
            assert_eq!(seconds(step(before, nodes)), expected, "{nodes} after {before}");
        }
    }

    proptest! {
        #[test]
        fn a_step_covers_its_nodes_and_stays(before in 0..9_usize, nodes in 0..10_000_usize) {
            let found = step(before, nodes);
            prop_assert!((STEPS[found].0..=STEPS[found].1).contains(&nodes));
            prop_assert_eq!(step(found, nodes), found);
        }
    }
}
