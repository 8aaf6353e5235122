//! Which characters a reader can see, and which make text show in another order than it is written.
//!
//! Unicode's own properties decide, from the tables of ICU4X; only what its blank symbols lack is listed here.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use icu_properties::props::{BidiControl, DefaultIgnorableCodePoint, WhiteSpace};
use icu_properties::{CodePointSetData, CodePointSetDataBorrowed};

const BIDI_CONTROLS: CodePointSetDataBorrowed<'static> = CodePointSetData::new::<BidiControl>();
/// Drawn as nothing where they are not supported: zero-width characters, soft hyphen, fillers, variation selectors, tags.
const IGNORABLE: CodePointSetDataBorrowed<'static> = CodePointSetData::new::<DefaultIgnorableCodePoint>();
const WHITE_SPACE: CodePointSetDataBorrowed<'static> = CodePointSetData::new::<WhiteSpace>();

/// General category Cc, which never changes (Unicode's stability policy).
const CONTROLS: [RangeInclusive<u32>; 2] = [0x00..=0x1F, 0x7F..=0x9F];

/// Line and paragraph separator: line breaks that are no control characters.
const SEPARATORS: RangeInclusive<u32> = 0x2028..=0x2029;

/// Drawn as nothing although no property says so: Braille's pattern without dots, the marks of interlinear annotations,
/// blanks of Egyptian hieroglyphs, and music's null notehead.
const BLANK_SYMBOLS: [RangeInclusive<u32>; 4] =
    [0x2800..=0x2800, 0xFFF9..=0xFFFB, 0x13441..=0x13442, 0x1D159..=0x1D159];

/// Whether a reader sees nothing of the character, when it stands alone.
pub fn is_invisible(c: char) -> bool {
    !c.is_ascii_graphic()
        && (c.is_control()
            || c.is_whitespace()
            || IGNORABLE.contains(c)
            || BLANK_SYMBOLS.iter().any(|range| range.contains(&u32::from(c))))
}

/// Why a character may stand nowhere in a line of text: it ends the line, controls the device, or turns the direction of
/// what is around it. The rest of a sentence that begins with the text.
pub fn refusal(c: char) -> Option<String> {
    let kind = if c.is_control() {
        "control characters"
    } else if c < BEFORE_BIDI_CONTROLS {
        return None;
    } else if BIDI_CONTROLS.contains(c) {
        "characters that change the direction of text"
    } else if SEPARATORS.contains(&u32::from(c)) {
        "line breaks"
    } else {
        return None;
    };
    Some(format!("must not hold {kind} (it has {})", code_point(c)))
}

/// The first of them; what is before it, most text of most users, is decided without a look at the table.
const BEFORE_BIDI_CONTROLS: char = '\u{61C}';

/// A character as Unicode's charts name it, since it may be one that cannot be seen.
pub fn code_point(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

// ---- The same for patterns: insides of character classes, as ECMA-262 (with its flag `u`) and others read them ----

/// What [`refusal`] refuses.
pub fn refused_class() -> String {
    class(CONTROLS.into_iter().chain([SEPARATORS]).chain(BIDI_CONTROLS.iter_ranges()))
}

/// What [`is_invisible`].
pub fn invisible_class() -> String {
    class(CONTROLS.into_iter().chain(WHITE_SPACE.iter_ranges()).chain(IGNORABLE.iter_ranges()).chain(BLANK_SYMBOLS))
}

/// What is ASCII, or [`is_invisible`].
pub fn ascii_or_invisible_class() -> String {
    class(
        [0..=0x7F]
            .into_iter()
            .chain(WHITE_SPACE.iter_ranges())
            .chain(IGNORABLE.iter_ranges())
            .chain(BLANK_SYMBOLS)
            .chain(CONTROLS),
    )
}

fn class(ranges: impl Iterator<Item = RangeInclusive<u32>>) -> String {
    let mut ranges: Vec<_> = ranges.map(RangeInclusive::into_inner).collect();
    ranges.sort_unstable();
    // Ranges that meet become one.
    ranges.dedup_by(|next, before| {
        let meets = next.0 <= before.1 + 1;
        if meets {
            before.1 = before.1.max(next.1);
        }
        meets
    });
    let mut text = String::new();
    for (first, last) in ranges {
        escape(first, &mut text);
        if first < last {
            text.push('-');
            escape(last, &mut text);
        }
    }
    text
}

/// Beyond the basic plane, the character itself: `\u{…}` is not understood everywhere.
fn escape(code_point: u32, text: &mut String) {
    match char::from_u32(code_point) {
        Some(c @ '\u{10000}'..) => text.push(c),
        _ => {
            let _ = write!(text, "\\u{code_point:04X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_told_from_what_can() {
        let invisible = "\u{200B}\u{200C}\u{200D}\u{2060}\u{FEFF}\u{AD}\u{34F}\u{115F}\u{1160}\u{3164}\u{FFA0}\u{2800}\u{180E}\
                         \u{FE0F}\u{E0100}\u{E0061}\u{2064}\u{202E}\u{1D159}\u{13441} \u{A0}\u{3000}\u{2028}\t\0\u{85}";
        for c in invisible.chars() {
            assert!(is_invisible(c), "{}", code_point(c));
        }
        for c in "aZ5-.é李م🦀\u{301}\u{E000}\u{600}".chars() {
            assert!(!is_invisible(c), "{}", code_point(c));
        }
    }

    #[test]
    fn characters_that_break_or_turn_a_line_are_refused_by_name() {
        let cases = [
            ('\0', Some("must not hold control characters (it has U+0000)")),
            ('\u{85}', Some("must not hold control characters (it has U+0085)")),
            ('\u{2029}', Some("must not hold line breaks (it has U+2029)")),
            ('\u{202E}', Some("must not hold characters that change the direction of text (it has U+202E)")),
            ('\u{2066}', Some("must not hold characters that change the direction of text (it has U+2066)")),
            ('\u{61C}', Some("must not hold characters that change the direction of text (it has U+061C)")),
            ('\u{200D}', None),
            ('\u{FE0F}', None),
            (' ', None),
            ('م', None),
        ];
        for (c, expected) in cases {
            assert_eq!(refusal(c).as_deref(), expected, "{}", code_point(c));
        }
    }

    #[test]
    fn the_classes_of_patterns_hold_what_the_rules_say() {
        let members = |class: String| {
            let schema = serde_json::json!({"pattern": format!("^[{class}]$")});
            let pattern = jsonschema::validator_for(&schema).unwrap();
            move |c: char| pattern.is_valid(&c.to_string().into())
        };
        let (refused, invisible) = (members(refused_class()), members(invisible_class()));
        let ascii_or_invisible = members(ascii_or_invisible_class());
        let mut cases = Vec::new();
        let basic_plane = '\0'..='\u{FFFF}';
        // Where some of the others are.
        let others = ('\u{13400}'..='\u{13460}').chain('\u{1BC90}'..='\u{1D200}').chain('\u{DFFF0}'..='\u{E1010}');
        // Wherever a rule begins or ceases to hold, and samples in between.
        let rules = |c: char| (refusal(c).is_some(), is_invisible(c), c.is_ascii());
        let mut before = ('\0', rules('\0'));
        for c in basic_plane.chain(others) {
            let now = rules(c);
            let edge = now != before.1;
            let (last, _) = std::mem::replace(&mut before, (c, now));
            if edge {
                cases.push(last);
            }
            if edge || u32::from(c) % 1021 == 0 {
                cases.push(c);
            }
        }
        assert!(cases.len() > 100, "{}", cases.len());
        for c in cases {
            assert_eq!(refused(c), refusal(c).is_some(), "refused: {}", code_point(c));
            assert_eq!(invisible(c), is_invisible(c), "invisible: {}", code_point(c));
            assert_eq!(ascii_or_invisible(c), c.is_ascii() || is_invisible(c), "{}", code_point(c));
        }
    }
}
