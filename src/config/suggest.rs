//! "Did you mean": the known word that is nearest to an unknown one.

/// `None` if nothing is near enough to be a typo.
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .filter_map(|word| {
            let distance = distance(unknown, word);
            near(distance.0, unknown, word).then_some((distance, word))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Edits, where case and the choice between `-` and `_` cost nothing, and a
/// shortened or lengthened word costs one. All edits decide between equals.
fn distance(unknown: &str, word: &str) -> (usize, usize) {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let (unknown, word) = (plain(unknown), plain(word));
    if unknown == word {
        return (0, 0);
    }
    let edits = strsim::damerau_levenshtein(&unknown, &word);
    if unknown.starts_with(&word) || (unknown.len() > 2 && word.starts_with(&unknown)) {
        return (edits.min(1), edits);
    }
    (edits, edits)
}

/// A quarter of the longer word may differ, never all of it.
fn near(distance: usize, unknown: &str, word: &str) -> bool {
    let longer = unknown.chars().count().max(word.chars().count());
    distance < longer && distance <= longer.div_ceil(4).min(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_typos_only() {
        let known = ["services", "service", "strip_path", "entrypoints", "state"];
        for (unknown, expected) in [
            ("servcie", Some("service")),
            ("strip-path", Some("strip_path")),
            ("entryPoints", Some("entrypoints")),
            ("entrypoint", Some("entrypoints")),
            ("stat", Some("state")),
            ("timeouts", None),
            ("x", None),
        ] {
            assert_eq!(nearest(unknown, known), expected, "{unknown}");
        }
    }
}
