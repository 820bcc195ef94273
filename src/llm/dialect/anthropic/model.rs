//! What a model can take, by its name: the API has no other way to tell.

/// The version in a model's name; a name without one counts as newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32);

impl Version {
    /// `claude-3-7-sonnet-20250219` is 3.7, `claude-opus-4-20250514` is 4.0.
    pub(super) fn of(model: &str) -> Self {
        let parts = model.split(['-', '.', '@', ':', '/']);
        // Longer numbers are dates.
        let mut numbers = parts.filter(|part| part.len() <= 2).filter_map(|part| part.parse().ok());
        match numbers.next() {
            Some(major) => Self(major, numbers.next().unwrap_or(0)),
            None => Self(u32::MAX, 0),
        }
    }

    pub(super) fn thinks(self) -> bool {
        self >= Self(3, 7)
    }

    /// Thinks as much as an effort level says, rather than within a budget.
    pub(super) fn takes_effort(self) -> bool {
        self >= Self(4, 6)
    }

    pub(super) fn takes_output_format(self) -> bool {
        self >= Self(4, 5)
    }

    /// Refuses `temperature` and `top_p` together.
    pub(super) fn takes_one_sampling_parameter(self) -> bool {
        self >= Self(4, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_names() {
        let cases = [
            ("claude-3-7-sonnet-20250219", Version(3, 7)),
            ("claude-3-haiku-20240307", Version(3, 0)),
            ("claude-opus-4-20250514", Version(4, 0)),
            ("claude-haiku-4-5-20251001", Version(4, 5)),
            ("anthropic/claude-sonnet-4.6", Version(4, 6)),
            ("claude-fable-5", Version(5, 0)),
            ("house-model", Version(u32::MAX, 0)),
        ];
        for (name, version) in cases {
            assert_eq!(Version::of(name), version, "{name}");
        }
    }
}
