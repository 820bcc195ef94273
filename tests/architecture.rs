//! The map, enforced: a room may use only rooms on floors below its own, and
//! each heavy dependency is named in its own rooms only.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Ground floor first. Rooms on one floor do not know each other.
const FLOORS: &[&[&str]] = &[
    &["config", "fault"],
    &["telemetry"],
    &["state"],
    &["route", "auth", "limit", "upstream", "llm", "ledger"],
    &["plugin"],
    &["proxy"],
    &["server", "control", "acme"],
    &["app"],
    &["cli", "main", "lib"],
];

/// Who may name a heavy dependency. Everyone else goes through that room.
const OWNERS: &[(&str, &[&str])] = &[
    ("pingora", &["server", "proxy", "app", "upstream"]),
    ("wasmtime", &["plugin"]),
    ("rustls", &["server", "upstream"]),
    ("aws_lc_rs", &["state", "server"]),
    ("rusqlite", &["state"]),
    ("redis", &["state"]),
    ("moka", &["state", "limit", "upstream"]),
    ("prometheus", &["telemetry"]),
    ("tracing_subscriber", &["telemetry"]),
    ("instant_acme", &["acme"]),
    ("clap", &["cli"]),
];

#[test]
fn rooms_only_look_down() {
    let mut bad = Vec::new();
    for Source { room, path, text } in sources() {
        for used in uses(&text) {
            let (Some(from), Some(to)) = (floor(&room), floor(&used)) else { continue };
            if used != room && to >= from {
                bad.push(format!("{}: {room} must not use {used}", path.display()));
            }
        }
    }
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
}

#[test]
fn every_room_has_a_floor() {
    for Source { room, path, .. } in sources() {
        assert!(floor(&room).is_some(), "{}: add `{room}` to FLOORS", path.display());
    }
}

#[test]
fn heavy_dependencies_stay_with_their_owners() {
    let mut bad = Vec::new();
    for Source { room, path, text } in sources() {
        for (dependency, owners) in OWNERS {
            if names_crate(&text, dependency) && !owners.contains(&room.as_str()) {
                bad.push(format!("{}: {dependency} belongs to {owners:?}", path.display()));
            }
        }
    }
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
}

#[test]
fn the_scan_sees_what_it_must() {
    assert_eq!(uses("use crate::{proxy::reply, state::{Hold, Cap}, fault};"), ["proxy", "state", "fault"]);
    assert_eq!(uses("let x = crate::app::run();\nuse crate::config;"), ["app", "config"]);
    assert!(names_crate("use pingora_core::server;", "pingora"));
    assert!(names_crate("::redis::cmd(\"GET\")", "redis"));
    assert!(!names_crate("use crate::state::redis::open;", "redis"));
    assert!(!names_crate("use my_redis::open;", "redis"));
    assert!(!names_crate("use rustls_pki_types::pem;", "rustls"));
    assert!(sources().iter().any(|source| source.room == "route"));
}

/// `krate::` or `krate_part::` at a word start, so `pingora_core::` counts and `my_redis::` does not.
fn names_crate(text: &str, krate: &str) -> bool {
    text.match_indices(krate).any(|(at, _)| {
        let after = ident(&text[at..]);
        starts_path(&text[..at])
            // Plain data types, which any room may pass on.
            && after != "rustls_pki_types"
            && (after == krate || after.starts_with(&format!("{krate}_")))
            && text[at + after.len()..].starts_with("::")
    })
}

/// Whether a path may start after this text: `x::` before it means that it is
/// a module of that name, a bare `::` that it is the crate.
fn starts_path(before: &str) -> bool {
    let word =
        |text: &str| text.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
    match before.strip_suffix("::") {
        Some(before) => !word(before),
        None => !word(before),
    }
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Names after `crate::`, through nested braces: `crate::{a, b::{c}}` gives a and b.
fn uses(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(listed(list)),
            None => found.push(ident(rest)),
        }
    }
    found
}

/// The first name of each entry of a braced list, up to its closing brace.
fn listed(list: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut depth, mut fresh) = (0, true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && c.is_alphabetic() => {
                found.push(ident(&list[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    found
}

fn ident(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

struct Source {
    room: String,
    path: PathBuf,
    /// Without comment lines.
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut todo, mut sources) = (vec![root.clone()], Vec::new());
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(read(&root, path));
            }
        }
    }
    sources
}

fn read(root: &Path, path: PathBuf) -> Source {
    let below = path.strip_prefix(root).expect("every source is below src");
    let first = below.iter().next().and_then(|first| first.to_str()).unwrap_or_default();
    let room = first.trim_end_matches(".rs").to_owned();
    let text = fs::read_to_string(&path).expect("every source can be read");
    let text =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    Source { room, path, text }
}
