//! The syntax of `ASSIGNED_VNODES`: `auto`, or numbers and ranges such as `0-341,500`.
//!
//! Owns reading and printing it. What a pin means to the assignment is in [`plan`](mod@crate::plan).

use std::fmt;

use roost_proto::VnodeId;

/// The vnodes a node asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Pins {
    /// Whatever the planner gives it.
    #[default]
    Auto,
    /// These: ascending, none twice, at least one.
    Vnodes(Vec<VnodeId>),
}

/// Why a text is not an `ASSIGNED_VNODES`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts of the errors say it")]
pub enum PinsError {
    #[error("nothing is assigned: write 'auto', or vnodes such as '0-341,500'")]
    Empty,
    #[error("'{part}' is neither a vnode nor a range: write 'auto', or vnodes such as '0-341,500'")]
    Syntax { part: String },
    #[error("'{part}' is out of range: this ring has the vnodes 0 to {last}")]
    OutOfRange { part: String, last: u32 },
    #[error("the range '{part}' is reversed: write '{end}-{start}'")]
    Reversed { part: String, start: u32, end: u32 },
}

impl Pins {
    /// Reads `auto` or a comma-separated list of vnodes and inclusive ranges for a ring of `vnodes` vnodes
    /// (see [`check_vnodes`](crate::check_vnodes)). Blanks around parts, overlaps and any order are fine.
    ///
    /// # Errors
    /// [`PinsError`] names the part that is wrong.
    pub fn parse(text: &str, vnodes: u32) -> Result<Self, PinsError> {
        match text.trim() {
            "" => return Err(PinsError::Empty),
            "auto" => return Ok(Self::Auto),
            _ => {}
        }
        let mut pins = Vec::new();
        for part in text.split(',') {
            let (start, end) = parse_part(part.trim(), vnodes)?;
            pins.extend((start..=end).map(VnodeId));
        }
        pins.sort_unstable();
        pins.dedup();
        Ok(Self::Vnodes(pins))
    }

    /// The pinned vnodes, ascending; none for `auto`.
    pub fn vnodes(&self) -> &[VnodeId] {
        match self {
            Self::Auto => &[],
            Self::Vnodes(pins) => pins,
        }
    }
}

/// The first and last vnode of one part, `7` or `3-9`.
fn parse_part(part: &str, vnodes: u32) -> Result<(u16, u16), PinsError> {
    let (start, end) = part.split_once('-').unwrap_or((part, part));
    let number =
        |digits: &str| {
            let digits = digits.trim();
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(PinsError::Syntax { part: part.to_owned() });
            }
            // Digits that do not fit 16 bits are a number too large for any ring, not a typing error.
            digits.parse::<u16>().ok().filter(|&n| u32::from(n) < vnodes).ok_or_else(|| {
                PinsError::OutOfRange { part: part.to_owned(), last: vnodes.saturating_sub(1) }
            })
        };
    let (start, end) = (number(start)?, number(end)?);
    if start > end {
        return Err(PinsError::Reversed { part: part.to_owned(), start: start.into(), end: end.into() });
    }
    Ok((start, end))
}

/// Prints what [`Pins::parse`] reads, in the fewest parts.
impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Vnodes(pins) = self else { return f.write_str("auto") };
        let runs = pins.chunk_by(|a, b| a.index() + 1 == b.index());
        for (i, run) in runs.enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match run {
                [start, .., end] => write!(f, "{start}-{end}")?,
                [one] => write!(f, "{one}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        Pins::parse(text, 1024).unwrap_err().to_string()
    }

    #[test]
    fn numbers_ranges_blanks_and_overlaps_are_read() {
        let ids = |numbers: &[u16]| Pins::Vnodes(numbers.iter().copied().map(VnodeId).collect());
        assert_eq!(Pins::parse("auto", 1024), Ok(Pins::Auto));
        assert_eq!(Pins::parse(" 9, 3 - 5 ,4-6,9", 1024), Ok(ids(&[3, 4, 5, 6, 9])));
        assert_eq!(Pins::parse("0-1023", 1024).unwrap().vnodes().len(), 1024);
        assert_eq!(Pins::parse("32767", 32_768), Ok(ids(&[32_767])));
        assert_eq!(Pins::parse("500,0-170,171-341", 1024).unwrap().to_string(), "0-341,500");
        assert_eq!(Pins::parse("7,8", 1024).unwrap().to_string(), "7-8");
    }

    #[test]
    fn a_refusal_names_the_part_and_what_is_wrong() {
        assert_eq!(error("  "), "nothing is assigned: write 'auto', or vnodes such as '0-341,500'");
        for (text, part) in [
            ("1,,2", ""),
            ("1,2,", ""),
            ("0-", "0-"),
            ("-5", "-5"),
            ("1-2-3", "1-2-3"),
            ("+5", "+5"),
            ("0..9", "0..9"),
            ("auto,3", "auto"),
            ("3,Auto", "Auto"),
        ] {
            let expected = format!(
                "'{part}' is neither a vnode nor a range: write 'auto', or vnodes such as '0-341,500'"
            );
            assert_eq!(error(text), expected, "{text}");
        }
        for (text, part) in [
            ("0-341,1024", "1024"),
            ("5,1000-1024", "1000-1024"),
            ("99999999999999999999", "99999999999999999999"),
        ] {
            let expected = format!("'{part}' is out of range: this ring has the vnodes 0 to 1023");
            assert_eq!(error(text), expected, "{text}");
        }
        assert_eq!(error("1,341-0"), "the range '341-0' is reversed: write '0-341'");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_the_same(
            numbers in prop::collection::btree_set(0..64u16, 1..64),
            shift in 0..1024u16 - 64,
        ) {
            let numbers: BTreeSet<u16> = numbers.iter().map(|n| n + shift).collect();
            let pins = Pins::Vnodes(numbers.iter().copied().map(VnodeId).collect());
            let text = pins.to_string();
            prop_assert_eq!(Pins::parse(&text, 1024), Ok(pins));
            // Compact: a part for each number whose predecessor is missing, and no more.
            let starts = numbers.iter().filter(|&&n| n == 0 || !numbers.contains(&(n - 1))).count();
            prop_assert_eq!(text.split(',').count(), starts);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9,a-u \\-]{0,24}", bits in 0..16u32) {
            if let Ok(pins) = Pins::parse(&text, 1 << bits) {
                prop_assert!(pins.vnodes().iter().all(|v| v.index() < 1 << bits));
                prop_assert_eq!(Pins::parse(&pins.to_string(), 1 << bits), Ok(pins));
            }
        }
    }
}
