//! Calendar months in UTC, without a clock: the request carries the time.

const DAY_MS: u64 = 86_400_000;

/// `YYYY-MM` of a moment.
pub(crate) fn month(unix_ms: u64) -> String {
    let (year, month) = civil(unix_ms / DAY_MS);
    format!("{year:04}-{month:02}")
}

/// Year and month of a day counted from 1970-01-01 (Hinnant's algorithm:
/// years start in March, so that the leap day is the last of its year).
fn civil(days: u64) -> (u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month)
}

#[cfg(test)]
mod tests {
    use super::month;

    #[test]
    fn months_turn_at_midnight_utc() {
        assert_eq!(month(0), "1970-01");
        assert_eq!(month(951_782_399_999), "2000-02");
        assert_eq!(month(951_868_799_999), "2000-02");
        assert_eq!(month(951_868_800_000), "2000-03");
        assert_eq!(month(1_798_761_599_999), "2026-12");
        assert_eq!(month(1_798_761_600_000), "2027-01");
        assert_eq!(month(4_107_542_400_000), "2100-03");
    }
}
