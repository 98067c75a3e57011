//! Makes a failing run smaller: without the faults and the actions that it does not need.

/// Takes away one item after the other, as long as what is left still fails, until nothing more can go.
///
/// `fails` is asked at most as often as `runs` allows.
pub(super) fn without_needless<T: Clone>(items: &[T], runs: &mut usize, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut kept = items.to_vec();
    loop {
        let before = kept.len();
        let mut index = 0;
        while index < kept.len() && *runs > 0 {
            let mut fewer = kept.clone();
            fewer.remove(index);
            *runs -= 1;
            if fails(&fewer) {
                kept = fewer;
            } else {
                index += 1;
            }
        }
        if kept.len() == before || *runs == 0 {
            return kept;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_left() {
        let items: Vec<u32> = (0..20).collect();
        let mut runs = 200;
        let left = without_needless(&items, &mut runs, |items| items.contains(&3) && items.contains(&17));
        assert_eq!(left, [3, 17]);
        assert!(runs > 0);
    }

    #[test]
    fn it_stops_when_no_runs_are_left() {
        let items: Vec<u32> = (0..20).collect();
        let mut runs = 5;
        let left = without_needless(&items, &mut runs, |_| true);
        assert_eq!((left.len(), runs), (15, 0));
    }
}
