//! From a path or a text to a checked configuration and the files it depends on.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Config, ConfigError, ConfigErrors, read,
    reader::{Context, Env, Item, Names},
    scalar::Refusal,
    yaml::{self, Entry, Node, Place, Value},
};

/// A configuration and everything whose change should load it again.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// Configuration files, certificates and their keys, plugin modules and
    /// whatever `${file:…}` named; each once.
    pub files: Vec<PathBuf>,
}

/// One file's path and text.
type Source = (PathBuf, String);

/// Sections that files of a directory may share, as long as no name is there twice.
const SHARED: &[&str] =
    &["entrypoints", "services", "middlewares", "plugins", "consumers", "routes", "streams"];

impl Config {
    /// Reads a file, or all `*.yaml` and `*.yml` of a directory as one. Blocks on files.
    pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
        let sources = sources(path).map_err(|(file, error)| unreadable(file, &error))?;
        build(sources, &|name| std::env::var(name).ok())
    }

    /// Reads a text as if it stood in the file `origin`, from whose directory
    /// relative paths start. Blocks on the files that it names.
    pub fn parse(text: &str, origin: &Path, env: Env<'_>) -> Result<Loaded, ConfigErrors> {
        build(vec![(origin.to_owned(), text.to_owned())], env)
    }
}

fn sources(path: &Path) -> Result<Vec<Source>, (PathBuf, io::Error)> {
    let at = |file: &Path| {
        let file = file.to_owned();
        |error| (file, error)
    };
    if !path.is_dir() {
        let text = fs::read_to_string(path).map_err(at(path))?;
        return Ok(vec![(path.to_owned(), text)]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(at(path))? {
        let file = entry.map_err(at(path))?.path();
        if is_config_file(&file) {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(at(path)(io::Error::new(io::ErrorKind::NotFound, "no *.yaml or *.yml in the directory")));
    }
    files.sort();
    let read = |file: PathBuf| match fs::read_to_string(&file) {
        Ok(text) => Ok((file, text)),
        Err(error) => Err((file, error)),
    };
    files.into_iter().map(read).collect()
}

/// Editors leave hidden files beside those that they edit.
fn is_config_file(file: &Path) -> bool {
    let hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    yaml && !hidden && file.is_file()
}

fn unreadable(file: PathBuf, error: &io::Error) -> ConfigErrors {
    let files = vec![file.clone()];
    let error = ConfigError {
        file,
        line: 0,
        column: 0,
        path: String::new(),
        message: format!("cannot read: {error}"),
        suggestion: None,
    };
    ConfigErrors::new(vec![error], files)
}

fn build(sources: Vec<Source>, env: Env<'_>) -> Result<Loaded, ConfigErrors> {
    let (files, texts): (Vec<_>, Vec<_>) = sources.into_iter().unzip();
    let mut context = Context::new(env, &files);
    let mut broken = false;
    let mut entries = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let (root, flaws) = yaml::parse(text.trim_start_matches('\u{feff}'), index);
        // Half a tree would make mistakes of what is merely missing.
        broken |= root.is_none() && !flaws.is_empty();
        flaws.into_iter().for_each(|flaw| context.flaw(flaw));
        match root.map(|root| (root.is_null(), root)) {
            None | Some((true, _)) => {}
            Some((false, Node { value: Value::Map(found), .. })) => merge(&mut entries, found, &context),
            Some((false, Node { at, .. })) => {
                context.push(at, String::new(), Refusal::new("expected a mapping of sections"));
                broken = true;
            }
        }
    }
    let root = Node { value: Value::Map(entries), at: Place { file: 0, line: 1, column: 1 } };
    context.names = names(&root);
    let config = if broken { None } else { read::config(&Item::root(&context, &root)) };
    let (errors, files) = context.finish();
    match config {
        Some(config) if errors.is_empty() => Ok(Loaded { config, files }),
        _ => Err(ConfigErrors::new(errors, files)),
    }
}

/// Adds the sections of one file to those of the files before it.
fn merge(into: &mut Vec<Entry>, from: Vec<Entry>, context: &Context<'_>) {
    let written = |entry: &Entry| !(entry.node.is_null() && SHARED.contains(&entry.key.as_str()));
    for entry in from.into_iter().filter(written) {
        let Some(present) = into.iter_mut().find(|present| present.key == entry.key) else {
            into.push(entry);
            continue;
        };
        match (&mut present.node.value, entry.node.value) {
            (Value::Map(here), Value::Map(more)) if SHARED.contains(&entry.key.as_str()) => {
                merge_names(here, more, &entry.key, context);
            }
            (Value::Scalar { text: here, .. }, Value::Scalar { text: more, .. })
                if entry.key == "version" && *here == more => {}
            _ => {
                let message = format!("is in {} already", written_at(present.key_at, context));
                context.push(entry.key_at, entry.key, Refusal::new(message));
            }
        }
    }
}

fn merge_names(here: &mut Vec<Entry>, more: Vec<Entry>, section: &str, context: &Context<'_>) {
    for entry in more {
        match here.iter().find(|present| present.key == entry.key) {
            Some(present) => {
                let message = format!("is defined in {} already", written_at(present.key_at, context));
                context.push(entry.key_at, format!("{section}.{}", entry.key), Refusal::new(message));
            }
            None => here.push(entry),
        }
    }
}

fn written_at(place: Place, context: &Context<'_>) -> String {
    format!("{}:{}", context.sources[place.file].display(), place.line)
}

fn names(root: &Node) -> Names {
    let at = |path: &[&str]| keys(path.iter().try_fold(root, |node, key| member(node, key)));
    Names {
        entrypoints: at(&["entrypoints"]),
        services: at(&["services"]),
        middlewares: at(&["middlewares"]),
        plugins: at(&["plugins"]),
        resolvers: at(&["tls", "resolvers"]),
        tls_options: at(&["tls", "options"]),
    }
}

fn member<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
}

fn keys(node: Option<&Node>) -> Vec<String> {
    match node.map(|node| &node.value) {
        Some(Value::Map(entries)) => entries.iter().map(|entry| entry.key.clone()).collect(),
        _ => Vec::new(),
    }
}
