//! Go string literals: raw in backquotes, interpreted in double quotes.

/// What is wrong, at which byte of the literal.
type LiteralError = (usize, &'static str);

/// The value of the literal that `text` starts with, and its length in bytes.
pub(super) fn string(text: &str) -> Result<(String, usize), LiteralError> {
    match text.as_bytes().first() {
        Some(b'`') => raw(text),
        Some(b'"') => interpreted(text),
        Some(b'\'') => Err((0, "strings are written in ` or \", not in '")),
        _ => Err((0, "expected a string in ` or \"")),
    }
}

fn raw(text: &str) -> Result<(String, usize), LiteralError> {
    let end = text[1..].find('`').ok_or((0, "the string is not closed"))?;
    // The Go specification discards carriage returns in raw strings.
    Ok((text[1..=end].replace('\r', ""), end + 2))
}

fn interpreted(text: &str) -> Result<(String, usize), LiteralError> {
    let bytes = text.as_bytes();
    let mut value = Vec::new();
    let mut at = 1;
    loop {
        match bytes.get(at) {
            None | Some(b'\n') => return Err((0, "the string is not closed")),
            Some(b'"') => break,
            Some(b'\\') => at += escape(text, at, &mut value)?,
            Some(&byte) => {
                value.push(byte);
                at += 1;
            }
        }
    }
    let value = String::from_utf8(value).map_err(|_| (0, "the string is not UTF-8"))?;
    Ok((value, at + 1))
}

/// Appends what the escape at `at` stands for and returns its length.
fn escape(text: &str, at: usize, value: &mut Vec<u8>) -> Result<usize, LiteralError> {
    let unknown = (at, "unknown escape in string");
    let letter = *text.as_bytes().get(at + 1).ok_or(unknown)?;
    let byte = match letter {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' | b'"' => letter,
        b'0'..=b'7' => {
            let number = number(text, at + 1, 3, 8).ok_or(unknown)?;
            value.push(u8::try_from(number).map_err(|_| unknown)?);
            return Ok(4);
        }
        b'x' => {
            let number = number(text, at + 2, 2, 16).ok_or(unknown)?;
            value.push(u8::try_from(number).map_err(|_| unknown)?);
            return Ok(4);
        }
        b'u' | b'U' => {
            let digits = if letter == b'u' { 4 } else { 8 };
            let number = number(text, at + 2, digits, 16).ok_or(unknown)?;
            let char = char::from_u32(number).ok_or((at, "the escape is no Unicode character"))?;
            value.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(2 + digits);
        }
        _ => return Err(unknown),
    };
    value.push(byte);
    Ok(2)
}

fn number(text: &str, from: usize, digits: usize, radix: u32) -> Option<u32> {
    let text = text.get(from..from + digits)?;
    // `from_str_radix` would accept a leading `+`.
    text.chars().all(|c| c.is_digit(radix)).then(|| u32::from_str_radix(text, radix).ok()).flatten()
}
