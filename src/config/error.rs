//! What is wrong with a configuration: everything at once, each with its place.

use std::{fmt, path::PathBuf};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub file: PathBuf,
    /// From 1; 0 if the file as a whole is meant.
    pub line: usize,
    /// From 1, in characters; 0 if the file as a whole is meant.
    pub column: usize,
    /// Dotted, for example `routes.echo.service`; may be empty.
    pub path: String,
    /// Never holds a value that came from the environment or a file, except
    /// paths that cannot be read.
    pub message: String,
    /// What was probably meant, as it would be written.
    pub suggestion: Option<String>,
}

/// Every mistake of a configuration, in the order of the text. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    files: Vec<PathBuf>,
}

impl ConfigErrors {
    pub(super) fn new(mut errors: Vec<ConfigError>, files: Vec<PathBuf>) -> Self {
        errors.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        // A section that is read for two purposes reports its mistakes twice.
        errors.dedup();
        Self { errors, files }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.errors.iter()
    }

    /// What was read, or could not be, as far as the reading came: a change of
    /// one of these may mend it.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean \"{suggestion}\"?"),
            None => Ok(()),
        }
    }
}

/// One mistake per line.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
impl std::error::Error for ConfigErrors {}
