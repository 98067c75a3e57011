//! Names of signals, as in `stopSignal` of images and pods.

use nix::{libc, sys::signal::Signal};

/// The number of a signal given as `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`.
pub(crate) fn number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = short.strip_prefix("RTMIN") {
        let offset = if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse::<i32>().ok()? };
        let number = libc::SIGRTMIN() + offset;
        return (0..=32).contains(&offset).then_some(number).filter(|number| *number <= libc::SIGRTMAX());
    }
    if let Some(offset) = short.strip_prefix("RTMAX") {
        let offset = if offset.is_empty() { 0 } else { offset.strip_prefix('-')?.parse::<i32>().ok()? };
        let number = libc::SIGRTMAX() - offset;
        return (0..=32).contains(&offset).then_some(number).filter(|number| *number >= libc::SIGRTMIN());
    }
    format!("SIG{short}").parse::<Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(number("SIGTERM"), Some(15));
        assert_eq!(number("quit"), Some(3));
        assert_eq!(number("9"), Some(9));
        assert_eq!(number("SIGRTMIN+3"), Some(libc::SIGRTMIN() + 3));
        for wrong in ["", "0", "-1", "SIGNOTHING", "99999", "SIGRTMIN+99", "SIGRTMIN-1"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}
