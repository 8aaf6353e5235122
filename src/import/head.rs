//! The beginning of a source, which tells its form.

use std::io::{self, Read};

use crate::config::ImportFormat;

pub(super) const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Blanks at the beginning that are looked through for the first character.
const BLANK_MAX: usize = 16 * 1024 * 1024;

/// Bytes that tell the longest byte order mark, and an encoding without one.
const SIGNATURE: u64 = 4;

/// What was read of a source to find out what it is.
#[derive(Debug)]
pub(super) struct Head {
    /// The source's first bytes.
    pub(super) bytes: Vec<u8>,
    /// The form that its first character tells.
    pub(super) format: ImportFormat,
}

impl Head {
    /// Reads up to the first character that is not blank, or more. JSON lines begin with a brace; whatever else it is, the
    /// CSV header's check has a word for it. So it has for what begins with nothing but blanks for long.
    pub(super) fn read(input: &mut impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        input.by_ref().take(SIGNATURE).read_to_end(&mut bytes)?;
        let mut buffer = [0; 4096];
        let mut blank = if bytes.starts_with(BYTE_ORDER_MARK.as_bytes()) { BYTE_ORDER_MARK.len() } else { 0 };
        loop {
            blank += bytes[blank..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            if blank < bytes.len() || blank >= BLANK_MAX {
                break;
            }
            match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => bytes.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let json = bytes.get(blank) == Some(&b'{');
        Ok(Self { bytes, format: if json { ImportFormat::JsonLines } else { ImportFormat::Csv } })
    }

    /// What the source is, if its first bytes say that it is no text in UTF-8.
    pub(super) fn foreign(&self) -> Option<Foreign> {
        // UTF-16 and UTF-32 without a byte order mark are told by the zeros beside their first characters, which are
        // those of a header or a brace. A mark of UTF-32, little-endian, begins with one of UTF-16.
        match *self.bytes {
            [0xff, 0xfe, 0, 0, ..] | [1..=255, 0, 0, 0, ..] => Some(Foreign::Encoding("UTF-32LE")),
            [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, 1..=255, ..] => Some(Foreign::Encoding("UTF-32BE")),
            [0xff, 0xfe, ..] | [1..=255, 0, 1..=255, 0, ..] => Some(Foreign::Encoding("UTF-16LE")),
            [0xfe, 0xff, ..] | [0, 1..=255, 0, 1..=255, ..] => Some(Foreign::Encoding("UTF-16BE")),
            [0x1f, 0x8b, ..] => Some(Foreign::Gzip),
            [b'P', b'K', 3, 4, ..] => Some(Foreign::Zip),
            _ => None,
        }
    }
}

/// What a source is that is no text in UTF-8, and what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// Another encoding of Unicode, as iconv names it.
    #[error("in {0}, expected UTF-8; `iconv -f {0} -t UTF-8` converts it")]
    Encoding(&'static str),
    /// Compressed.
    #[error("compressed with gzip, expected text; `gzip -dc` unpacks it")]
    Gzip,
    /// An archive.
    #[error("a ZIP archive or a spreadsheet's workbook, expected text; save the sheet as CSV in UTF-8")]
    Zip,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(bytes: &[u8]) -> Head {
        Head::read(&mut &*bytes).unwrap()
    }

    /// A text in an encoding of units of that many bytes.
    fn encoded(text: &str, unit: usize, big_endian: bool) -> Vec<u8> {
        let wide = |byte: u8| {
            let mut bytes = vec![0; unit];
            bytes[if big_endian { unit - 1 } else { 0 }] = byte;
            bytes
        };
        text.bytes().flat_map(wide).collect()
    }

    #[test]
    fn the_encodings_of_unicode_are_told_with_and_without_a_byte_order_mark() {
        let marks: [(&str, usize, bool, &[u8]); 4] = [
            ("UTF-16LE", 2, false, b"\xff\xfe"),
            ("UTF-16BE", 2, true, b"\xfe\xff"),
            ("UTF-32LE", 4, false, b"\xff\xfe\0\0"),
            ("UTF-32BE", 4, true, b"\0\0\xfe\xff"),
        ];
        for (encoding, unit, big_endian, mark) in marks {
            for text in ["name,email\n", "{\"name\"", "\n\n{}"] {
                let bytes = encoded(text, unit, big_endian);
                let expected = Some(Foreign::Encoding(encoding));
                assert_eq!(head(&bytes).foreign(), expected, "{encoding}: {text:?}");
                assert_eq!(head(&[mark, &bytes].concat()).foreign(), expected, "{encoding} with its mark: {text:?}");
            }
            assert_eq!(head(mark).foreign(), Some(Foreign::Encoding(encoding)), "the mark alone");
        }
    }

    #[test]
    fn text_in_utf_8_is_not_foreign() {
        for text in ["", "n", "na", "name,email", "\u{feff}name", "{}", "\0\0\0\0", "\n\n\n\n", "Łukasz"] {
            assert_eq!(head(text.as_bytes()).foreign(), None, "{text:?}");
        }
    }

    #[test]
    fn the_first_character_tells_the_form() {
        for (text, json) in [
            ("{", true),
            ("\u{feff}{", true),
            (" \r\n\t{", true),
            ("\u{feff}\n{", true),
            ("name,email\n{", false),
            ("[{", false),
            ("", false),
            ("\u{feff}", false),
        ] {
            assert_eq!(head(text.as_bytes()).format == ImportFormat::JsonLines, json, "{text:?}");
        }
        assert_eq!(head(format!("{}{{", "\n".repeat(100_000)).as_bytes()).format, ImportFormat::JsonLines);
    }
}
