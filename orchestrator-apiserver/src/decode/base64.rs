//! Bytes in the notation of Base64, as far as their form goes.
//!
//! Upstream: `encoding/base64`, whose errors tell clients where a text goes wrong.

/// Where a text stops being Base64; `None` where all of it is. Ends of lines do not count.
pub(crate) fn corrupt_at(text: &str) -> Option<usize> {
    let letters: Vec<(usize, u8)> = text.bytes().enumerate().filter(|(_, byte)| !b"\r\n".contains(byte)).collect();
    let mut taken = 0;
    for (index, (at, byte)) in letters.iter().enumerate() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/') {
            taken += 1;
            continue;
        }
        // A sign that fills up the last four letters is the only other one allowed.
        return match (byte, taken % 4) {
            (b'=', 2) => match letters.get(index + 1) {
                None => Some(text.len()),
                Some((_, b'=')) => letters.get(index + 2).map(|(at, _)| *at),
                Some((next, _)) => Some(next - 1),
            },
            (b'=', 3) => letters.get(index + 1).map(|(at, _)| *at),
            _ => Some(*at),
        };
    }
    (taken % 4 != 0).then(|| text.len() - taken % 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_letter() {
        for good in ["", "YQ==", "YWI=", "YWJj", "YWJj\nYQ=="] {
            assert_eq!(corrupt_at(good), None, "{good}");
        }
        for (bad, at) in
            [("not base64!", 3), ("YQ=", 3), ("YQ", 0), ("YQ==YQ", 4), ("Y===", 1), ("YWJj?", 4), ("YQ=a", 2)]
        {
            assert_eq!(corrupt_at(bad), Some(at), "{bad}");
        }
    }
}
