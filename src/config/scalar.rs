//! Text of one scalar becomes a value with a unit: durations, sizes, rates,
//! money, addresses. Exact: nothing passes through a float.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use super::{ByteSize, suggest::nearest};

/// Why a scalar is refused. The message does not repeat the scalar, because it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub message: String,
    pub suggestion: Option<String>,
}

pub(super) type Result<T> = std::result::Result<T, Refusal>;

/// The longest duration that is taken; beyond it a typo is likelier than a wish.
const MAX_DURATION: Duration = Duration::from_secs(7 * 24 * 3600);

const DURATION_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// A month is 30 days.
const WINDOWS: &[(&str, u64)] = &[
    ("s", 1),
    ("sec", 1),
    ("second", 1),
    ("m", 60),
    ("min", 60),
    ("minute", 60),
    ("h", 3600),
    ("hour", 3600),
    ("d", 86_400),
    ("day", 86_400),
    ("month", 30 * 86_400),
];

impl Refusal {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), suggestion: None }
    }

    pub(super) fn suggesting(mut self, suggestion: Option<impl Into<String>>) -> Self {
        self.suggestion = suggestion.map(Into::into);
        self
    }
}

/// `true` or `false`; the YAML 1.1 spellings are refused.
pub(super) fn boolean(text: &str) -> Result<bool> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => {
            let meant = match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "1" | "true" => Some("true"),
                "no" | "off" | "n" | "0" | "false" => Some("false"),
                _ => None,
            };
            Err(Refusal::new("expected true or false").suggesting(meant))
        }
    }
}

pub(super) fn integer(text: &str) -> Result<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = if digits { text.parse().ok() } else { None };
    parsed.ok_or_else(|| Refusal::new("expected a whole number"))
}

/// May be negative.
pub(super) fn signed(text: &str) -> Result<i64> {
    text.parse().map_err(|_| Refusal::new("expected a whole number"))
}

/// `250ms`, `2s`, `5m`, `1h`; more than 0, at most 7 days.
pub(super) fn duration(text: &str) -> Result<Duration> {
    let (number, unit) = split_unit(text);
    let expected = "expected a duration such as 250ms, 2s, 5m or 1h";
    let amount = integer(number).map_err(|_| Refusal::new(expected))?;
    let millis = scale(unit, DURATION_UNITS).map_err(|unit| {
        let suggestion = unit.map(|unit| format!("{number}{unit}"));
        Refusal::new(expected).suggesting(suggestion)
    })?;
    let duration = Duration::from_millis(amount.saturating_mul(millis));
    if duration.is_zero() || duration > MAX_DURATION {
        return Err(Refusal::new("a duration is more than 0 and at most 168h"));
    }
    Ok(duration)
}

/// `64KiB`, `10MB`, or a plain number of bytes.
pub(super) fn size(text: &str) -> Result<ByteSize> {
    let (number, unit) = split_unit(text);
    let expected = "expected a size such as 64KiB or 10MB";
    let amount = integer(number).map_err(|_| Refusal::new(expected))?;
    let unit = if unit.is_empty() { "B" } else { unit };
    let bytes = scale(unit, SIZE_UNITS).map_err(|unit| {
        let suggestion = unit.map(|unit| format!("{number}{unit}"));
        Refusal::new(expected).suggesting(suggestion)
    })?;
    amount.checked_mul(bytes).map(ByteSize).ok_or_else(|| Refusal::new("a size is below 16 EiB"))
}

/// `5/min`: how many in which window.
pub(super) fn rate(text: &str) -> Result<(u64, Duration)> {
    let expected = || Refusal::new("expected a rate such as 10/s, 5/min, 100/hour, 1000/day or 10000/month");
    let (number, unit) = text.split_once('/').ok_or_else(expected)?;
    let limit = integer(number.trim()).map_err(|_| expected())?;
    let seconds = scale(unit.trim(), WINDOWS).map_err(|unit| {
        let suggestion = unit.map(|unit| format!("{limit}/{unit}"));
        expected().suggesting(suggestion)
    })?;
    if limit == 0 {
        return Err(Refusal::new("a rate is at least 1"));
    }
    Ok((limit, Duration::from_secs(seconds)))
}

/// USD per million tokens as pico-USD per token: `0.15` is 150,000.
pub(super) fn price(text: &str) -> Result<u64> {
    decimal(text, 6)
}

/// USD as nano-USD: `10.00` is 10,000,000,000.
pub(super) fn usd(text: &str) -> Result<i64> {
    let nano = decimal(text, 9)?;
    i64::try_from(nano).map_err(|_| Refusal::new("the amount is too large"))
}

/// A decimal number times ten to the power of `places`, exactly.
fn decimal(text: &str, places: usize) -> Result<u64> {
    let expected = || Refusal::new("expected an amount of USD such as \"0.15\"");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if text.ends_with('.') {
        return Err(expected());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > places {
        return Err(Refusal::new(format!("an amount has at most {places} decimal places here")));
    }
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected());
    }
    let whole = integer(whole).map_err(|_| expected())?;
    let scaled = integer(&format!("{fraction:0<places$}")).unwrap_or(0);
    let unit = 10_u64.pow(u32::try_from(places).unwrap_or(0));
    whole
        .checked_mul(unit)
        .and_then(|units| units.checked_add(scaled))
        .ok_or_else(|| Refusal::new("the amount is too large"))
}

/// `:8080` is every interface; else `IP:port` or `localhost:port`. Port 0 takes a free one.
pub(super) fn address(text: &str) -> Result<SocketAddr> {
    let expected = "expected an address such as 127.0.0.1:8080, [::1]:8080 or :8080 for all interfaces";
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| {
        Refusal::new(expected).suggesting(text.parse::<u16>().ok().map(|port| format!(":{port}")))
    })?;
    let port: u16 = port.parse().map_err(|_| Refusal::new(expected))?;
    match host {
        "" | "*" => Ok((Ipv6Addr::UNSPECIFIED, port).into()),
        "localhost" => Ok((Ipv4Addr::LOCALHOST, port).into()),
        _ => Err(Refusal::new(expected)),
    }
}

/// An exact host or `*.` and one; kept as written.
pub(super) fn host_pattern(text: &str) -> Result<String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if name.is_empty() || name.contains(['*', '/', ' ']) {
        return Err(Refusal::new("expected a host such as example.com or *.example.com"));
    }
    Ok(text.to_owned())
}

/// The same as a DNS name in lower case, for TLS: no port, no trailing dot.
pub(super) fn host(text: &str) -> Result<String> {
    let host = host_pattern(text)?.to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    if host.len() > 253 || !host.strip_prefix("*.").unwrap_or(&host).split('.').all(label) {
        return Err(Refusal::new("expected a DNS name such as example.com or *.example.com"));
    }
    Ok(host)
}

/// An address, or a network such as `10.0.0.0/8`.
pub(super) fn network(text: &str) -> Result<IpNet> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => {
            text.parse().map_err(|_| Refusal::new("expected a network such as 10.0.0.0/8 or fd00::/8"))?
        }
    };
    if network.trunc() != network {
        let meant = network.trunc().to_string();
        return Err(Refusal::new("bits are set beyond the prefix").suggesting(Some(meant)));
    }
    Ok(network)
}

/// `1KiB/s`.
pub(super) fn byte_rate(text: &str) -> Result<ByteSize> {
    let expected = "expected a rate such as 1KiB/s";
    match text.strip_suffix("/s") {
        Some(amount) => size(amount.trim_end()),
        None => Err(Refusal::new(expected).suggesting(size(text).ok().map(|_| format!("{text}/s")))),
    }
}

/// Like [`duration`], also in days (`30d`), at most a year.
pub(super) fn long_duration(text: &str) -> Result<Duration> {
    let Some(days) = text.strip_suffix('d') else { return duration(text) };
    match integer(days.trim_end()) {
        Ok(days @ 1..=365) => Ok(Duration::from_secs(days * 86_400)),
        _ => Err(Refusal::new("expected a duration such as 12h or 30d, at most 365d")),
    }
}

/// 64 hexadecimal digits.
pub(super) fn digest(text: &str) -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| Refusal::new("expected a SHA-256 as 64 hexadecimal digits"))?;
    Ok(bytes)
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

/// The factor of a unit, or the unit that was probably meant.
fn scale(
    unit: &str,
    units: &'static [(&'static str, u64)],
) -> std::result::Result<u64, Option<&'static str>> {
    match units.iter().find(|(name, _)| *name == unit) {
        Some((_, factor)) => Ok(*factor),
        None => Err(nearest(unit, units.iter().map(|(name, _)| *name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, millis) in
            [("250ms", 250), ("2s", 2000), ("5m", 300_000), ("1h", 3_600_000), ("2 s", 2000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "5", "s", "-1s", "1.5s", "0s", "169h", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("5S").unwrap_err().suggestion.as_deref(), Some("5s"));
        assert_eq!(duration("5sec").unwrap_err().suggestion.as_deref(), Some("5s"));
    }

    #[test]
    fn sizes_are_decimal_or_binary() {
        for (text, bytes) in
            [("64KiB", 65_536), ("10MB", 10_000_000), ("17", 17), ("3B", 3), ("2 GiB", 2_147_483_648)]
        {
            assert_eq!(size(text), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "KiB", "1.5MB", "-1", "99999999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(size("10mb").unwrap_err().suggestion.as_deref(), Some("10MB"));
    }

    #[test]
    fn rates_have_windows() {
        for (text, limit, seconds) in [
            ("5/min", 5, 60),
            ("10/s", 10, 1),
            ("100/hour", 100, 3600),
            ("1000/day", 1000, 86_400),
            ("7/month", 7, 2_592_000),
        ] {
            assert_eq!(rate(text), Ok((limit, Duration::from_secs(seconds))), "{text}");
        }
        for text in ["", "5", "0/s", "5/", "/min", "-5/min", "1.5/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert_eq!(rate("5/mins").unwrap_err().suggestion.as_deref(), Some("5/min"));
    }

    #[test]
    fn money_is_exact() {
        for (text, pico) in
            [("0.15", 150_000), ("3", 3_000_000), ("0.000001", 1), ("0", 0), ("2.500000000", 2_500_000)]
        {
            assert_eq!(price(text), Ok(pico), "{text}");
        }
        assert_eq!(usd("10.00"), Ok(10_000_000_000));
        assert_eq!(usd("0.000000001"), Ok(1));
        assert_eq!(usd("9223372036.854775807"), Ok(i64::MAX));
        for text in
            ["", ".", "1.", ".5", "-1", "1e3", "1,5", "0.0000000001", "9223372036.854775808", "1.+5", "$1"]
        {
            assert!(usd(text).is_err(), "{text}");
        }
        assert!(price("0.0000001").is_err(), "finer than a pico-USD per token");
    }

    #[test]
    fn addresses() {
        for (text, expected) in [
            (":8080", "[::]:8080"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("localhost:80", "127.0.0.1:80"),
            ("[::1]:443", "[::1]:443"),
            ("0.0.0.0:1", "0.0.0.0:1"),
        ] {
            assert_eq!(address(text).map(|address| address.to_string()), Ok(expected.to_owned()), "{text}");
        }
        for text in ["", "8080", "127.0.0.1", ":65536", "example.com:80", "127.0.0.1:"] {
            assert!(address(text).is_err(), "{text}");
        }
        assert_eq!(address("8080").unwrap_err().suggestion.as_deref(), Some(":8080"));
    }

    #[test]
    fn booleans_are_two_words() {
        assert_eq!(boolean("true"), Ok(true));
        assert_eq!(boolean("yes").unwrap_err().suggestion.as_deref(), Some("true"));
        assert_eq!(boolean("Off").unwrap_err().suggestion.as_deref(), Some("false"));
    }
}
