//! Quantities: exact amounts of resources, such as `100m` or `1Gi`.
//!
//! Upstream: `k8s.io/apimachinery/pkg/api/resource` and
//! <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.

use std::{
    cmp::Ordering,
    fmt,
    iter::Sum,
    ops::{Add, AddAssign, Neg, Sub, SubAssign},
    str::FromStr,
};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

/// Amounts are counted in billionths, the finest that upstream keeps.
const NANOS: i128 = 1_000_000_000;
const NANO_EXPONENT: i32 = -9;
const DECIMAL_SUFFIXES: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY_SUFFIXES: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
/// Up to so many digits upstream keeps an amount as it was written, if that is in canonical form by its measure.
const FAST_DIGITS: i32 = 18;

/// An exact amount, which remembers the family of suffixes it was written in.
///
/// Equality and order are those of the amounts: `1` equals `1000m`.
///
/// ```
/// use orchestrator_core::quantity::Quantity;
///
/// let half: Quantity = "0.5".parse().unwrap();
/// assert_eq!(half.to_string(), "500m");
/// assert_eq!((half + "1500m".parse().unwrap()).to_string(), "2");
/// assert_eq!("1.5Gi".parse::<Quantity>().unwrap().value(), 1_610_612_736);
/// ```
#[derive(Clone, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
    /// Kept where upstream writes an amount as it came, such as `1.123`.
    text: Option<Box<str>>,
}

/// The family of suffixes an amount is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Powers of ten by exponent: `12e6`.
    DecimalExponent,
    /// Powers of two: `12Mi`.
    BinarySi,
    /// Powers of ten: `12M`.
    #[default]
    DecimalSi,
}

/// A text is not a quantity. The messages are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It does not look like one.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// Its suffix is none of those known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// Its number is not one, or does not fit (beyond ten to the power of 29).
    #[error("unable to parse numeric part of quantity")]
    Number,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi, text: None };

    /// A whole amount.
    pub fn from_value(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANOS, format, text: None }
    }

    /// An amount in thousandths, such as CPU time.
    pub fn from_milli_value(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * (NANOS / 1000), format, text: None }
    }

    /// The amount in whole units, rounded away from zero; at most what fits.
    pub fn value(&self) -> i64 {
        clamp(divide_away_from_zero(self.nanos, NANOS))
    }

    /// The amount in thousandths, rounded away from zero; at most what fits.
    pub fn milli_value(&self) -> i64 {
        clamp(divide_away_from_zero(self.nanos, NANOS / 1000))
    }

    /// The amount as a floating point number, possibly less exact.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    /// The family of suffixes it is written in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i8 {
        self.nanos.signum() as i8
    }

    /// So many times this amount; the largest possible amount if that is too much.
    #[must_use]
    pub fn multiply(&self, factor: i64) -> Self {
        Self { nanos: self.nanos.saturating_mul(factor.into()), format: self.format, text: None }
    }

    /// The canonical text of what an object carries, or that text itself where it is no quantity.
    pub fn canonical(written: &Written) -> Written {
        Self::try_from(written).map_or_else(|_| written.clone(), |quantity| Written(quantity.to_string()))
    }

    /// The sum; its format is the left one's, unless that is nothing.
    fn plus(&self, nanos: i128, format: Format) -> Self {
        let format = if self.is_zero() { format } else { self.format };
        Self { nanos: self.nanos.saturating_add(nanos), format, text: None }
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self::ZERO
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl AddAssign<&Quantity> for Quantity {
    fn add_assign(&mut self, other: &Self) {
        *self = self.plus(other.nanos, other.format);
    }
}

impl SubAssign<&Quantity> for Quantity {
    fn sub_assign(&mut self, other: &Self) {
        *self = self.plus(other.nanos.saturating_neg(), other.format);
    }
}

impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.plus(other.nanos, other.format)
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.plus(other.nanos.saturating_neg(), other.format)
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: self.nanos.saturating_neg(), format: self.format, text: None }
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl TryFrom<&Written> for Quantity {
    type Error = QuantityError;

    fn try_from(written: &Written) -> Result<Self, QuantityError> {
        written.0.parse()
    }
}

impl From<&Quantity> for Written {
    fn from(quantity: &Quantity) -> Self {
        Self(quantity.to_string())
    }
}

impl From<Quantity> for Written {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let parts = Parts::split(text)?;
        let (scale, format) = Scale::of_suffix(parts.suffix).ok_or(QuantityError::Suffix)?;
        let nanos = parts.nanos(scale)?;
        let (nanos, format) = match format {
            Format::BinarySi if (1..NANOS).contains(&nanos) => (nanos, Format::DecimalSi),
            Format::BinarySi => (nanos.min(i128::from(i64::MAX) * NANOS), Format::BinarySi),
            decimal => (nanos, decimal),
        };
        let text = parts.stands_as_written(scale).then(|| text.into());
        Ok(Self { nanos: if parts.negative { -nanos } else { nanos }, format, text })
    }
}

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

impl Scale {
    fn of_suffix(suffix: &str) -> Option<(Self, Format)> {
        if let Some((_, exponent)) = DECIMAL_SUFFIXES.iter().find(|(text, _)| *text == suffix) {
            return Some((Self::Ten(*exponent), Format::DecimalSi));
        }
        if let Some((_, exponent)) = BINARY_SUFFIXES.iter().find(|(text, _)| *text == suffix) {
            return Some((Self::Two(*exponent), Format::BinarySi));
        }
        let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
        Some((Self::Ten(exponent), Format::DecimalExponent))
    }
}

/// A quantity's text, taken apart.
struct Parts<'a> {
    negative: bool,
    /// Without leading zeros; empty for a number below one.
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (whole, rest) = split_digits(unsigned);
        let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), split_digits);
        let exponent = suffix.trim_start_matches(|letter: char| "eEinumkKMGTP".contains(letter));
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if !exponent.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(QuantityError::Format);
        }
        Ok(Self { negative: text.starts_with('-'), whole: whole.trim_start_matches('0'), fraction, suffix })
    }

    /// The amount in billionths without its sign. What is finer is rounded up: who asks for little gets some.
    fn nanos(&self, scale: Scale) -> Result<i128, QuantityError> {
        let fraction = self.fraction.trim_end_matches('0');
        let digits = format!("{}{fraction}", self.whole);
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return Ok(0);
        }
        let places = fraction.len() as i64;
        let (factor, exponent) = match scale {
            Scale::Ten(exponent) => (1, i64::from(exponent)),
            Scale::Two(exponent) => (1_i128 << exponent, 0),
        };
        let shift = exponent - places - i64::from(NANO_EXPONENT);
        if shift + (digits.len() as i64) < -20 {
            return Ok(1);
        }
        // Digits far below a billionth matter only by being there.
        let keep = digits.len().min(FAST_DIGITS as usize + 18);
        let (kept, dropped) = digits.split_at(keep);
        let shift = shift + dropped.len() as i64;
        let number: i128 = kept.parse().map_err(|_| QuantityError::Number)?;
        let number = number.checked_mul(factor).ok_or(QuantityError::Number)?;
        let power = u32::try_from(shift.unsigned_abs()).map_err(|_| QuantityError::Number)?;
        let power = 10_i128.checked_pow(power);
        if shift >= 0 {
            return power.and_then(|power| number.checked_mul(power)).ok_or(QuantityError::Number);
        }
        let rest = dropped.bytes().any(|digit| digit != b'0');
        let Some(power) = power else { return Ok(1) };
        let rounded = divide_away_from_zero(number, power);
        Ok(if rest && number % power == 0 { rounded + 1 } else { rounded })
    }

    /// Whether upstream takes this text for canonical and repeats it.
    fn stands_as_written(&self, scale: Scale) -> bool {
        let shifted = format!("{}{}", if self.whole.is_empty() { "0" } else { self.whole }, self.fraction);
        let digits = shifted.len() as i32;
        match scale {
            Scale::Two(exponent) => {
                let precision = 14 - self.whole.len().max(1) as i32 - (exponent * 3 / 10) as i32;
                let odd = self.whole.parse::<i64>().is_ok_and(|value| value & 7 != 0);
                self.fraction.is_empty() && precision >= 0 && odd
            }
            Scale::Ten(exponent) => {
                let exponent = exponent.saturating_sub(self.fraction.len() as i32);
                digits <= FAST_DIGITS
                    && exponent >= NANO_EXPONENT
                    && exponent % 3 == 0
                    && !shifted.ends_with("000")
                    && !shifted.starts_with('0')
            }
        }
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.text {
            return f.pad(text);
        }
        if self.nanos == 0 {
            return f.pad("0");
        }
        let whole = self.nanos % NANOS == 0;
        let large = self.nanos.unsigned_abs() >= 1024 * NANOS.unsigned_abs();
        f.pad(&match self.format {
            Format::BinarySi if whole && large => binary(self.nanos / NANOS),
            Format::DecimalExponent => decimal(self.nanos, false),
            Format::BinarySi | Format::DecimalSi => decimal(self.nanos, true),
        })
    }
}

fn binary(value: i128) -> String {
    let largest = BINARY_SUFFIXES.iter().rev().find(|(_, exponent)| value % (1_i128 << exponent) == 0);
    largest.map_or_else(|| value.to_string(), |(suffix, exponent)| format!("{}{suffix}", value >> exponent))
}

fn decimal(nanos: i128, suffixes: bool) -> String {
    let (mut number, mut exponent) = (nanos, NANO_EXPONENT);
    while number % 1000 == 0 {
        number /= 1000;
        exponent += 3;
    }
    match DECIMAL_SUFFIXES.iter().find(|(_, known)| *known == exponent) {
        Some((suffix, _)) if suffixes => format!("{number}{suffix}"),
        _ if exponent == 0 => number.to_string(),
        _ => format!("{number}e{exponent}"),
    }
}

fn divide_away_from_zero(number: i128, by: i128) -> i128 {
    number / by + if number % by == 0 { 0 } else { number.signum() }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn canonical_texts_are_upstreams() {
        for (text, canonical) in [
            ("0", "0"),
            ("0Mi", "0"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("100000", "100k"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("1536Ki", "1536Ki"),
            ("8192Ki", "8Mi"),
            ("12e6", "12e6"),
            ("12E5", "1200e3"),
            ("1e-3", "1e-3"),
            ("100Ki", "100Ki"),
            ("0.1n", "1n"),
            ("1.123", "1.123"),
            ("1.123000", "1123m"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("-1.5Gi", "-1536Mi"),
            ("1000E", "1e21"),
            ("10Ei", "9223372036854775807"),
            ("0.0001Ki", "102400u"),
            ("+1", "+1"),
            ("01", "01"),
            ("1.G", "1.G"),
            (".5Gi", "512Mi"),
            ("1024", "1024"),
            ("5Ki", "5Ki"),
        ] {
            assert_eq!(quantity(text).to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_in_upstreams_words() {
        for text in ["", "1.1.M", "1+1.0M", "aoeu", "1 ", " 1", "-3.01e-x", "1..0"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Format), "{text}");
        }
        for text in ["1i", "0.1mi", "1e", "-3.01e-", "1Kii", "--1"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Suffix), "{text}");
        }
        assert_eq!("1e40".parse::<Quantity>(), Err(QuantityError::Number));
    }

    #[test]
    fn values_round_away_from_zero() {
        assert_eq!(quantity("1500m").value(), 2);
        assert_eq!(quantity("-1500m").value(), -2);
        assert_eq!(quantity("1n").milli_value(), 1);
        assert_eq!(quantity("1Ei").milli_value(), i64::MAX);
        assert_eq!(quantity("1e-100"), quantity("1n"));
        assert_eq!(quantity("1.00000000000000000000000000000000000000000001"), quantity("1000000001n"));
    }

    #[test]
    fn a_sum_is_written_as_its_first_part() {
        assert_eq!((quantity("1Gi") + quantity("1G")).to_string(), "2073741824");
        assert_eq!((quantity("0") + quantity("1Gi")).to_string(), "1Gi");
        assert_eq!(quantity("100m").multiply(3).to_string(), "300m");
        assert_eq!((quantity("1") - quantity("2")).to_string(), "-1");
    }

    fn any_text() -> impl Strategy<Value = String> {
        let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "e3", "E-3", "e0"];
        (any::<i32>(), proptest::option::of(0_u32..100_000), proptest::sample::select(suffixes.to_vec())).prop_map(
            |(whole, fraction, suffix)| match fraction {
                Some(fraction) => format!("{whole}.{fraction}{suffix}"),
                None => format!("{whole}{suffix}"),
            },
        )
    }

    proptest! {
        #[test]
        fn a_text_comes_back(text in any_text()) {
            let read = quantity(&text);
            let again = quantity(&read.to_string());
            prop_assert_eq!(&again, &read);
            prop_assert_eq!(again.to_string(), read.to_string());
        }

        #[test]
        fn sums_commute_and_differences_undo_them(a in any_text(), b in any_text()) {
            let (a, b) = (quantity(&a), quantity(&b));
            prop_assert_eq!(a.clone() + b.clone(), b.clone() + a.clone());
            prop_assert_eq!(a.clone() + b.clone() - b, a);
        }

        #[test]
        fn order_is_that_of_the_values(a in any::<i32>(), b in any::<i32>()) {
            let milli = |value: i32| Quantity::from_milli_value(value.into(), Format::DecimalSi);
            prop_assert_eq!(milli(a).cmp(&milli(b)), a.cmp(&b));
            prop_assert_eq!(quantity(&format!("{a}Ki")).cmp(&quantity(&format!("{b}Ki"))), a.cmp(&b));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+.0-9eEinumkKMGTP]{0,60}") {
            if let Ok(read) = text.parse::<Quantity>() {
                let _ = (read.to_string(), read.value(), read.milli_value());
            }
        }
    }
}
