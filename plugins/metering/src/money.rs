//! Exact amounts. Dollars are nano-USD, percentages are parts per million of
//! the whole; no floating point anywhere.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

const NANO_DIGITS: usize = 9;
/// One percent is 10,000 parts per million, so four digits are exact.
const PERCENT_DIGITS: usize = 4;
const MILLION: u128 = 1_000_000;

/// An amount in nano-USD, written as a decimal string of dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Usd(pub(crate) u64);

/// A percentage in parts per million, written as a decimal string or number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Percent(pub(crate) u64);

impl Usd {
    /// Nine digits at most after the point; not negative.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let nano = decimal(text, NANO_DIGITS)
            .filter(|nano| i64::try_from(*nano).is_ok())
            .ok_or_else(|| format!("`{text}` is not an amount like \"12.50\""))?;
        Ok(Self(nano))
    }
}

impl Percent {
    fn parse(text: &str) -> Result<Self, String> {
        decimal(text, PERCENT_DIGITS)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a percentage like \"12.5\""))
    }

    /// This share of an amount, rounded up: the operator never pays the fraction.
    pub(crate) fn of(self, nano_usd: u64) -> u64 {
        let share = (u128::from(nano_usd) * u128::from(self.0)).div_ceil(MILLION);
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// The amount plus this share of it.
    pub(crate) fn on_top_of(self, nano_usd: u64) -> u64 {
        nano_usd.saturating_add(self.of(nano_usd))
    }
}

/// Signed nano-USD as dollars with nine digits, for example `-0.000000001`.
pub(crate) fn dollars(nano_usd: i64) -> String {
    let sign = if nano_usd < 0 { "-" } else { "" };
    let nano = nano_usd.unsigned_abs();
    format!("{sign}{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000)
}

/// A plain decimal scaled by ten to the `digits`; `None` if it is anything
/// else or does not fit.
fn decimal(text: &str, digits: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !plain(fraction) || fraction.len() > digits {
        return None;
    }
    format!("{whole}{fraction:0<digits$}").parse().ok()
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Decimal).and_then(|text| Self::parse(&text).map_err(de::Error::custom))
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Decimal).and_then(|text| Self::parse(&text).map_err(de::Error::custom))
    }
}

/// YAML turns an unquoted `12.5` into a number: its shortest form is what was
/// written, so it is as exact as the string.
struct Decimal;

impl de::Visitor<'_> for Decimal {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a decimal string or number")
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_u64<E>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E>(self, number: f64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_exactly() {
        assert_eq!(Usd::parse("10"), Ok(Usd(10_000_000_000)));
        assert_eq!(Usd::parse("0.000000001"), Ok(Usd(1)));
        assert_eq!(Usd::parse("9223372036.854775807"), Ok(Usd(u64::try_from(i64::MAX).unwrap())));
        for bad in
            ["", ".", "1.", ".5", "-1", "+1", "1e3", "0.0000000001", "9223372036.854775808", " 1", "1_0"]
        {
            assert!(Usd::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn dollars_are_written_with_nine_digits() {
        assert_eq!(dollars(1_500_000_000), "1.500000000");
        assert_eq!(dollars(-1), "-0.000000001");
        assert_eq!(dollars(i64::MIN), "-9223372036.854775808");
    }

    #[test]
    fn shares_round_up() {
        let percent: Percent = serde_json::from_str("12.5").unwrap();
        assert_eq!(percent, serde_json::from_str("\"12.5\"").unwrap());
        assert_eq!(percent.of(8), 1);
        assert_eq!(percent.of(9), 2);
        assert_eq!(percent.on_top_of(0), 0);
        assert_eq!(Percent(0).on_top_of(7), 7);
        assert_eq!(percent.on_top_of(u64::MAX), u64::MAX);
    }
}
