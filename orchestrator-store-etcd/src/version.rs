//! What a version of etcd can be relied on for.

/// A version of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

impl Version {
    /// From what a member says of itself; what follows the three numbers is passed over.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(3, '.');
        let mut whole = || parts.next()?.parse().ok();
        let (major, minor) = (whole()?, whole()?);
        let patch: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
        Some(Self(major, minor, patch.parse().ok()?))
    }

    /// Whether it knows requests for progress, and messages in fragments.
    pub(crate) fn serves(self) -> bool {
        self >= Self(3, 4, 0)
    }

    /// Whether a watch that is told how far it is has been given everything up to there. Before these versions etcd told so
    /// while changes were still on their way: <https://github.com/etcd-io/etcd/issues/15220>.
    pub(crate) fn tells_progress(self) -> bool {
        match self {
            Self(3, 4, patch) => patch >= 25,
            Self(3, 5, patch) => patch >= 8,
            later => later >= Self(3, 6, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(Version::parse("3.4.23"), Some(Version(3, 4, 23)));
        assert_eq!(Version::parse("3.6.0-rc.1+git"), Some(Version(3, 6, 0)));
        for bad in ["", "3", "3.4", "3.4.", "v3.4.1", "a.b.c", "3.4.99999999999"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn progress_is_believed_where_it_is_true() {
        let tells =
            |text: &str| Version::parse(text).is_some_and(|version| version.serves() && version.tells_progress());
        for good in ["3.4.25", "3.4.33", "3.5.8", "3.5.21", "3.6.0", "3.7.1", "4.0.0"] {
            assert!(tells(good), "{good}");
        }
        for bad in ["3.3.27", "3.4.0", "3.4.24", "3.5.0", "3.5.7"] {
            assert!(!tells(bad), "{bad}");
        }
        assert!(Version(3, 4, 0).serves() && !Version(3, 3, 27).serves());
    }
}
