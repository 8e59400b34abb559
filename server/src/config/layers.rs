//! The three sources of settings, laid over one another, each value with where it stands; and what was wrong with them.

use super::keys::{KEYS, Key, VM_KEYS};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where the settings come from. Kept, so that a reload reads the same sources again.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file to read; one that was not asked for may be missing.
    pub file: PathBuf,
    /// Whether somebody asked for that file.
    pub file_is_named: bool,
    /// Values of flags, by the key's name.
    pub flags: BTreeMap<&'static str, Vec<String>>,
    /// Values of environment variables, by the key's name.
    pub environment: BTreeMap<&'static str, String>,
    /// What is started as a worker instead of this binary (tests).
    pub worker_program: Option<PathBuf>,
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the file, at a line and a column counted from 1.
    File(PathBuf, usize, usize),
    /// The file as a whole.
    WholeFile(PathBuf),
    /// In an environment variable.
    Variable(String),
    /// A flag.
    Flag(String),
    /// Nobody said it.
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path, line, column) => write!(f, "{}:{line}:{column}", path.display()),
            Self::WholeFile(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value before it means anything.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// A string of the file, a flag or a variable.
    Text(String),
    /// A number of the file.
    Integer(i64),
    /// A truth value of the file.
    Boolean(bool),
    /// An array of the file, or repeated flags.
    List(Vec<(Origin, Self)>),
    /// Something of the file that no setting takes, by its kind.
    Other(&'static str),
}

impl std::fmt::Display for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "'{text}'"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Boolean(truth) => write!(f, "{truth}"),
            Self::List(_) => f.write_str("a list"),
            Self::Other(kind) => write!(f, "a value of kind {kind}"),
        }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {message}")]
pub struct Problem {
    origin: Origin,
    message: String,
}

impl Problem {
    /// A mistake at `origin`.
    #[must_use]
    pub fn new(origin: Origin, message: String) -> Self {
        Self { origin, message }
    }
}

/// All mistakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl std::error::Error for Problems {}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// The sources, read.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// The file that was read.
    pub(super) file: Option<PathBuf>,
    values: BTreeMap<&'static str, (Origin, Raw)>,
    /// The rules.
    pub(super) vms: Vec<Table>,
    /// What was wrong so far.
    pub(super) problems: Vec<Problem>,
}

/// One `[[vm]]`.
#[derive(Debug)]
pub(super) struct Table {
    /// Where it begins.
    pub(super) origin: Origin,
    values: BTreeMap<&'static str, (Origin, Raw)>,
}

/// Meaning of a value, or what is wrong with it.
pub(super) type Parse<T> = fn(&Raw) -> Result<T, String>;

impl Layers {
    /// Reads the file, then lays the environment and the flags over it.
    pub(super) fn read(sources: &Sources) -> Self {
        let mut layers = Self::default();
        match std::fs::read_to_string(&sources.file) {
            Ok(text) => {
                layers.file = Some(sources.file.clone());
                layers.read_file(&sources.file, &text);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !sources.file_is_named => {}
            Err(error) => {
                let origin = Origin::WholeFile(sources.file.clone());
                layers.problems.push(Problem::new(origin, format!("cannot be read: {error}")));
            }
        }
        for key in KEYS {
            if let Some(text) = sources.environment.get(key.name) {
                let origin = Origin::Variable(key.variable());
                let raw = if key.is_list() { split(&origin, text) } else { Raw::Text(text.clone()) };
                layers.values.insert(key.name, (origin, raw));
            }
            if let Some(texts) = sources.flags.get(key.name) {
                let origin = Origin::Flag(key.flag());
                let raw = match texts.as_slice() {
                    [text] if !key.is_list() => Raw::Text(text.clone()),
                    texts => Raw::List(
                        texts.iter().map(|text| (origin.clone(), Raw::Text(text.clone()))).collect(),
                    ),
                };
                layers.values.insert(key.name, (origin, raw));
            }
        }
        layers
    }

    fn read_file(&mut self, path: &Path, text: &str) {
        let (document, errors) = DeTable::parse_recoverable(text);
        let file = File { path, text };
        for error in errors {
            let origin = file.origin(error.span().map_or(0, |span| span.start));
            self.problems.push(Problem::new(origin, error.message().to_owned()));
        }
        for (name, value) in document.get_ref() {
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("vm", DeValue::Array(rules)) => {
                    for rule in rules {
                        self.read_rule(&file, rule);
                    }
                }
                ("vm", _) => {
                    let origin = file.origin(value.span().start);
                    self.problems.push(Problem::new(origin, "vm: rules are written as [[vm]]".into()));
                }
                (table, DeValue::Table(entries)) if KEYS.iter().any(|key| in_table(key, table)) => {
                    for (entry, value) in entries {
                        self.read_entry(&file, &format!("{table}.{}", entry.get_ref()), entry, value);
                    }
                }
                (key, _) => self.read_entry(&file, key, name, value),
            }
        }
    }

    fn read_entry(
        &mut self,
        file: &File<'_>,
        name: &str,
        at: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        match KEYS.iter().find(|key| key.name == name) {
            Some(key) => {
                let value = (file.origin(value.span().start), file.raw(value));
                self.values.insert(key.name, value);
            }
            None => self.problems.push(unknown(file.origin(at.span().start), name, &names)),
        }
    }

    fn read_rule(&mut self, file: &File<'_>, rule: &Spanned<DeValue<'_>>) {
        let origin = file.origin(rule.span().start);
        let Some(entries) = rule.get_ref().as_table() else {
            self.problems.push(Problem::new(origin, "vm: rules are written as [[vm]]".into()));
            return;
        };
        let mut values = BTreeMap::new();
        for (entry, value) in entries {
            match VM_KEYS.iter().find(|key| *key == entry.get_ref()) {
                Some(key) => {
                    values.insert(*key, (file.origin(value.span().start), file.raw(value)));
                }
                None => {
                    let mut problem = unknown(file.origin(entry.span().start), entry.get_ref(), VM_KEYS);
                    problem.message.insert_str(0, "vm: ");
                    self.problems.push(problem);
                }
            }
        }
        self.vms.push(Table { origin, values });
    }

    /// Whether somebody set the key.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Where the setting stands.
    pub(super) fn origin(&self, name: &str) -> Origin {
        self.values.get(name).map_or(Origin::Default, |(origin, _)| origin.clone())
    }

    /// The meaning of a setting, or of its default where there is none or it is wrong (which is noted).
    pub(super) fn take<T>(&mut self, name: &'static str, parse: Parse<T>) -> T {
        self.take_with(name, parse)
    }

    /// As [`Self::take`], with a closure.
    pub(super) fn take_with<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&Raw) -> Result<T, String>,
    ) -> T {
        if let Some((origin, raw)) = self.values.get(name) {
            match parse(raw) {
                Ok(value) => return value,
                Err(message) => {
                    self.problems.push(Problem::new(origin.clone(), format!("{name}: {message}")));
                }
            }
        }
        let default = Raw::Text(default_of(name).to_owned());
        parse(&default).unwrap_or_else(|error| panic!("the default of {name} is good: {error}"))
    }

    /// The meanings of a setting with several values.
    pub(super) fn list<T>(&mut self, name: &'static str, parse: Parse<T>) -> Vec<(Origin, T)> {
        let (origin, raw) = match self.values.get(name) {
            Some(value) => value.clone(),
            None => (Origin::Default, split(&Origin::Default, default_of(name))),
        };
        let entries = match raw {
            Raw::List(entries) => entries,
            one => vec![(origin, one)],
        };
        let mut values = Vec::new();
        for (origin, raw) in entries {
            match parse(&raw) {
                Ok(value) => values.push((origin, value)),
                Err(message) => self.problems.push(Problem::new(origin, format!("{name}: {message}"))),
            }
        }
        values
    }
}

impl Table {
    /// Whether the rule has the key.
    pub(super) fn had(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The meaning of a key of the rule; `None` where it is absent or wrong (which is noted).
    pub(super) fn take<T>(&mut self, name: &str, parse: Parse<T>, problems: &mut Vec<Problem>) -> Option<T> {
        self.take_with(name, parse, problems)
    }

    /// As [`Self::take`], with a closure.
    pub(super) fn take_with<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&Raw) -> Result<T, String>,
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        let (origin, raw) = self.values.get(name)?;
        match parse(raw) {
            Ok(value) => Some(value),
            Err(message) => {
                problems.push(Problem::new(origin.clone(), format!("vm: {name}: {message}")));
                None
            }
        }
    }
}

fn default_of(name: &str) -> &'static str {
    KEYS.iter().find(|key| key.name == name).expect("settings are taken by names of the table").default
}

fn in_table(key: &Key, table: &str) -> bool {
    key.name.split_once('.').is_some_and(|(first, _)| first == table)
}

fn split(origin: &Origin, text: &str) -> Raw {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    Raw::List(parts.map(|part| (origin.clone(), Raw::Text(part.to_owned()))).collect())
}

/// A key that nobody knows, with the one that was probably meant.
fn unknown(origin: Origin, name: &str, known: &[&str]) -> Problem {
    let near =
        known.iter().map(|key| (distance(name, key), key)).min().filter(|(distance, _)| *distance <= 2);
    let meant = near.map_or_else(String::new, |(_, key)| format!("; '{key}' perhaps?"));
    Problem::new(origin, format!("'{name}' is no setting{meant}"))
}

/// Edits between two words (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, b) in other.bytes().enumerate() {
            let change = corner + usize::from(a != b);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[other.len()]
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn origin(&self, offset: usize) -> Origin {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        Origin::File(self.path.to_owned(), line, column)
    }

    fn raw(&self, value: &Spanned<DeValue<'_>>) -> Raw {
        match value.get_ref() {
            DeValue::String(text) => Raw::Text(text.clone().into_owned()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Raw::Other("number of more than 64 bits"), Raw::Integer),
            DeValue::Boolean(truth) => Raw::Boolean(*truth),
            DeValue::Array(entries) => Raw::List(
                entries.iter().map(|entry| (self.origin(entry.span().start), self.raw(entry))).collect(),
            ),
            other => Raw::Other(other.type_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_named() {
        assert_eq!(distance("pool.size", "pool.size"), 0);
        assert_eq!(distance("pool.siez", "pool.size"), 2);
        assert_eq!(distance("", "abc"), 3);
        let problem = unknown(Origin::Default, "drvier", &["driver", "devices"]);
        assert!(problem.to_string().ends_with("'drvier' is no setting; 'driver' perhaps?"));
    }

    #[test]
    fn places_count_from_one() {
        let file = File { path: Path::new("f"), text: "a\nbc\n" };
        assert_eq!(file.origin(0), Origin::File("f".into(), 1, 1));
        assert_eq!(file.origin(3), Origin::File("f".into(), 2, 2));
        assert_eq!(file.origin(99), Origin::File("f".into(), 3, 1));
    }
}
