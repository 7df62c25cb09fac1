//! Timestamps as they go over the wire: UTC, RFC 3339, milliseconds.

const DAY_MS: u64 = 86_400_000;

/// Writes milliseconds since 1970 as `2026-11-21T06:40:00.123Z` (RFC 3339 §5.6).
pub fn rfc3339(ms: u64) -> String {
    let (year, month, day) = civil((ms / DAY_MS) as i64);
    let t = ms % DAY_MS;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        t / 3_600_000,
        t / 60_000 % 60,
        t / 1000 % 60,
        t % 1000
    )
}

/// Year, month, day of a day counted from 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

/// Reads such a text, with any fraction (cut to milliseconds) and any zone; `None` for what is not one, or lies
/// before 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !text.is_ascii() || bytes.len() < 20 || marks.iter().any(|&(at, mark)| bytes[at] != mark) {
        return None;
    }
    let number =
        |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?;
    let part = |from: usize, to: usize| number(&text[from..to]);
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    // The day exists if it comes back as it was; a leap second counts as the next one (RFC 3339 §5.6).
    let days = days_from_civil(year, u32::try_from(month).ok().filter(|m| (1..=12).contains(m))?, day);
    if civil(days) != (year, month as u32, day as u32) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let zone = text[19..].trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let fraction = &text[19..text.len() - zone.len()];
    let millis = match fraction.strip_prefix('.') {
        None => fraction.is_empty().then_some(0)?,
        Some(digits) => number(&format!("{digits:0<3}")[..3]).filter(|_| number(digits).is_some())?,
    };
    let ahead_min = match zone.as_bytes() {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(&zone[1..3])?, number(&zone[4..6])?);
            let ahead = (hours <= 23 && minutes <= 59).then_some(60 * hours + minutes)?;
            if *sign == b'+' { ahead } else { -ahead }
        }
        _ => return None,
    };
    let seconds = days * 86_400 + hour * 3_600 + (minute - ahead_min) * 60 + second;
    u64::try_from(seconds * 1_000 + millis).ok()
}

/// The inverse of [`civil`] (the same source, `days_from_civil`).
fn days_from_civil(year: i64, month: u32, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let yoe = year.rem_euclid(400);
    let doy = (153 * (i64::from(month) + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

#[cfg(test)]
mod tests {
    use super::{parse_rfc3339, rfc3339};

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for ms in [0, 951_782_400_000, 1_795_243_200_123, 4_107_542_399_999] {
            assert_eq!(parse_rfc3339(&rfc3339(ms)), Some(ms));
        }
        let same = ["2026-11-21T06:40:00.5Z", "2026-11-21T06:40:00.500999Z", "2026-11-21T08:10:00.50+01:30"];
        assert!(same.iter().all(|text| parse_rfc3339(text) == Some(1_795_243_200_500)));
        assert_eq!(parse_rfc3339("2026-11-21T06:40:00Z"), Some(1_795_243_200_000));
        for bad in [
            "",
            "2026-11-21",
            "2026-11-21T06:40:00",
            "2026-11-21 06:40:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T06:40:00.Z",
            "2026-11-21T06:40:00..5Z",
            "2026-11-21T06:40:00+1:30",
            "+026-11-21T06:40:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-21T06:40:00é",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn timestamps_match_known_dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_243_200_123), "2026-11-21T06:40:00.123Z");
        assert_eq!(rfc3339(4_107_542_399_999), "2100-02-28T23:59:59.999Z");
    }
}
