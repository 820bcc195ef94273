//! Checks a chunked body (RFC 9112 section 7.1) as its bytes pass and finds
//! its exact end. Pure; what two implementations could read differently is
//! refused.

/// The longest chunk head: size and extensions.
const MAX_HEAD: usize = 4 * 1024;
/// 15 hexadecimal digits: no sum of sizes can overflow.
const MAX_DIGITS: u8 = 15;
/// Extensions may weigh as much as the data, and so much more. Nobody reads
/// them: a body of nothing else only costs us.
const EXTENSIONS_FREE: u64 = 16 * 1024;
/// The whole trailer section.
const MAX_TRAILERS: usize = 16 * 1024;

/// Fields that must not come after the body (RFC 9110 section 6.5.1): framing,
/// routing and authentication. All others are let through to the engine, which
/// drops them.
const FORBIDDEN_TRAILERS: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Longer names are not forbidden.
const LONGEST_FORBIDDEN: usize = 19;

/// The place in one chunked body. Copying it is cheap.
#[derive(Debug, Clone)]
pub(super) struct Chunked {
    at: At,
    /// Of the chunk whose head is being read.
    size: u64,
    /// Bytes of this chunk head, or of the trailer section.
    length: usize,
    /// Data and extension bytes of the whole body.
    data: u64,
    extensions: u64,
    /// The beginning of a trailer's name, in lower case.
    name: [u8; LONGEST_FORBIDDEN],
    name_length: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size {
        digits: u8,
    },
    ExtensionName {
        empty: bool,
    },
    ExtensionValue,
    Token,
    Quoted,
    Escaped,
    AfterQuoted,
    /// White space that only an extension may follow, after a name also a value.
    Blank {
        name: bool,
    },
    HeadEnd,
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    /// Nothing that follows belongs to the body.
    End,
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            at: At::Size { digits: 0 },
            size: 0,
            length: 0,
            data: 0,
            extensions: 0,
            name: [0; LONGEST_FORBIDDEN],
            name_length: 0,
        }
    }
}

impl Chunked {
    pub(super) fn is_complete(&self) -> bool {
        self.at == At::End
    }

    /// How many of `bytes`, which follow those of earlier calls, belong to the
    /// body: all of them, unless it ends among them.
    ///
    /// # Errors
    /// What is wrong with the body. No further call makes sense then.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut seen = 0;
        while seen < bytes.len() && self.at != At::End {
            if let At::Data { left } = self.at {
                let part = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - seen);
                seen += part;
                self.at = match left - part as u64 {
                    0 => At::DataCr,
                    left => At::Data { left },
                };
                continue;
            }
            self.at = self.step(bytes[seen])?;
            seen += 1;
        }
        Ok(seen)
    }

    fn step(&mut self, byte: u8) -> Result<At, &'static str> {
        match self.at {
            At::DataCr if byte == b'\r' => Ok(At::DataLf),
            At::DataLf if byte == b'\n' => {
                self.length = 0;
                self.size = 0;
                Ok(At::Size { digits: 0 })
            }
            At::DataCr | At::DataLf => Err("a chunk is longer than its size"),
            At::TrailerStart | At::TrailerName | At::TrailerValue | At::TrailerLf | At::LastLf => {
                self.count_trailer()?;
                self.trailer(byte)
            }
            _ => {
                self.count_head()?;
                self.head(byte)
            }
        }
    }

    fn count_head(&mut self) -> Result<(), &'static str> {
        self.length += 1;
        if !matches!(self.at, At::Size { .. } | At::HeadEnd) {
            self.extensions += 1;
        }
        if self.length > MAX_HEAD || self.extensions > self.data + EXTENSIONS_FREE {
            return Err("the chunk extensions are too long");
        }
        Ok(())
    }

    fn head(&mut self, byte: u8) -> Result<At, &'static str> {
        match (self.at, byte) {
            (At::Size { digits }, _) => self.size(digits, byte),
            (At::ExtensionName { empty: false } | At::Token | At::AfterQuoted, b'\r') => Ok(At::HeadEnd),
            (At::ExtensionName { empty: false } | At::Token | At::AfterQuoted | At::Blank { .. }, b';') => {
                Ok(At::ExtensionName { empty: true })
            }
            (At::ExtensionName { empty: false } | At::Blank { name: true }, b'=') => Ok(At::ExtensionValue),
            // Bad white space has to be read past (RFC 9110 section 5.6.3), but
            // none may end the line.
            (At::ExtensionName { empty: true } | At::ExtensionValue | At::Blank { .. }, b' ' | b'\t') => {
                Ok(self.at)
            }
            (At::ExtensionName { empty: false }, b' ' | b'\t') => Ok(At::Blank { name: true }),
            (At::Token | At::AfterQuoted, b' ' | b'\t') => Ok(At::Blank { name: false }),
            (At::ExtensionName { .. }, _) if is_token(byte) => Ok(At::ExtensionName { empty: false }),
            (At::ExtensionValue, b'"') => Ok(At::Quoted),
            (At::ExtensionValue | At::Token, _) if is_token(byte) => Ok(At::Token),
            (At::Quoted, b'"') => Ok(At::AfterQuoted),
            (At::Quoted, b'\\') => Ok(At::Escaped),
            (At::Quoted | At::Escaped, _) if is_text(byte) => Ok(At::Quoted),
            (At::HeadEnd, b'\n') => Ok(self.body()),
            (At::HeadEnd, _) => Err("a chunk head must end with CR LF"),
            _ => Err("a chunk extension is malformed"),
        }
    }

    fn size(&mut self, digits: u8, byte: u8) -> Result<At, &'static str> {
        match (byte, char::from(byte).to_digit(16)) {
            (_, Some(digit)) if digits < MAX_DIGITS => {
                self.size = self.size << 4 | u64::from(digit);
                Ok(At::Size { digits: digits + 1 })
            }
            (b'\r', _) if digits > 0 => Ok(At::HeadEnd),
            (b';', _) if digits > 0 => Ok(At::ExtensionName { empty: true }),
            (b' ' | b'\t', _) if digits > 0 => Ok(At::Blank { name: false }),
            _ => Err("a chunk size is malformed"),
        }
    }

    /// What comes after a chunk head.
    fn body(&mut self) -> At {
        if self.size == 0 {
            self.length = 0;
            return At::TrailerStart;
        }
        self.data = self.data.saturating_add(self.size);
        At::Data { left: self.size }
    }

    fn count_trailer(&mut self) -> Result<(), &'static str> {
        self.length += 1;
        if self.length > MAX_TRAILERS { Err("the trailer section is too long") } else { Ok(()) }
    }

    fn trailer(&mut self, byte: u8) -> Result<At, &'static str> {
        match (self.at, byte) {
            (At::TrailerStart, b'\r') => Ok(At::LastLf),
            (At::LastLf, b'\n') => Ok(At::End),
            (At::TrailerStart, _) if is_token(byte) => {
                self.name_length = 0;
                self.note(byte);
                Ok(At::TrailerName)
            }
            (At::TrailerName, b':') if self.is_forbidden() => Err("a field is not allowed as a trailer"),
            (At::TrailerName, b':') => Ok(At::TrailerValue),
            (At::TrailerName, _) if is_token(byte) => {
                self.note(byte);
                Ok(At::TrailerName)
            }
            (At::TrailerValue, b'\r') => Ok(At::TrailerLf),
            (At::TrailerValue, _) if is_text(byte) => Ok(At::TrailerValue),
            (At::TrailerLf, b'\n') => Ok(At::TrailerStart),
            _ => Err("a trailer field is malformed"),
        }
    }

    fn note(&mut self, byte: u8) {
        if let Some(slot) = self.name.get_mut(self.name_length) {
            *slot = byte.to_ascii_lowercase();
        }
        self.name_length += 1;
    }

    fn is_forbidden(&self) -> bool {
        let name = self.name.get(..self.name_length);
        name.is_some_and(|name| FORBIDDEN_TRAILERS.iter().any(|forbidden| forbidden.as_bytes() == name))
    }
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a field value or a quoted text may hold (RFC 9110 section 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests;
