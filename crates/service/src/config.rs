//! The environment, read once into a flat struct; what is wrong is told in one line that names the variable.
//!
//! [`envy`] fills the struct. Its own errors show values and lose names, so the fields are `Option<String>` and
//! each is checked by [`field`], [`optional`] or [`required`] under its name. No secret is ever in an error.

mod common;
mod fields;
mod names;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

pub use self::common::{
    Backends, CommonConfig, Defaults, JwtConfig, KafkaConfig, Sasl, SaslMechanism, SecurityProtocol, Tuning,
};
pub use self::fields::{
    database_url, field, flag, http_url, number, one_of, optional, power_of_two, redis_url, required, rooms,
    socket_addr, text, ws_url,
};

/// A variable whose name has one of these words in it is a secret.
const SECRET_WORDS: [&str; 4] = ["SECRET", "PASSWORD", "TOKEN", "KEY"];
/// And these, because a URL may carry a password.
const SECRET_URLS: [&str; 2] = ["REDIS_URL", "DATABASE_URL"];
/// Of a wrong value, so much is shown.
const SHOWN_CHARS_MAX: usize = 60;

/// What is wrong with the environment. One line, naming the variable; a program leaves with exit code 64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{name} is not set: {hint}")]
    Missing { name: String, hint: String },
    #[error("{name} is {value}: {reason}")]
    Invalid { name: String, value: String, reason: String },
    #[error("{name} {reason}")]
    InvalidSecret { name: String, reason: String },
    #[error("{name} and {name}_FILE are both set: keep one")]
    Twice { name: String },
    #[error("{name}_FILE: {path}: {reason}")]
    File { name: String, path: String, reason: String },
}

impl ConfigError {
    /// `name` is needed and not set; `hint` says what to do.
    pub fn missing(name: &str, hint: &str) -> Self {
        Self::Missing { name: name.into(), hint: one_line(hint) }
    }

    /// `name` has a value that will not do. The value is shown unless it is a secret.
    pub fn invalid(name: &str, value: &str, reason: &str) -> Self {
        if is_secret(name) {
            // A reason written elsewhere (a parser's) may quote what it was given.
            let quotes = !value.is_empty() && reason.contains(value);
            let reason = if quotes { "is not accepted".to_owned() } else { one_line(reason) };
            return Self::InvalidSecret { name: name.into(), reason };
        }
        let mut shown: String = value.chars().take(SHOWN_CHARS_MAX).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        Self::Invalid { name: name.into(), value: format!("{shown:?}"), reason: one_line(reason) }
    }

    /// Names the variable that was set: a secret may be in a file, and then that one is to be looked at.
    #[must_use]
    pub fn as_written(self, vars: &[(String, String)]) -> Self {
        let set = |name: &str| vars.iter().any(|(n, value)| n == name && !value.trim().is_empty());
        let file = format!("{}_FILE", self.variable());
        if set(self.variable()) || !set(&file) {
            return self;
        }
        match self {
            Self::Invalid { value, reason, .. } => Self::Invalid { name: file, value, reason },
            Self::InvalidSecret { reason, .. } => Self::InvalidSecret { name: file, reason },
            // These say which of the two they mean.
            other @ (Self::Missing { .. } | Self::Twice { .. } | Self::File { .. }) => other,
        }
    }

    /// The variable this is about.
    pub fn variable(&self) -> &str {
        match self {
            Self::Missing { name, .. }
            | Self::Invalid { name, .. }
            | Self::InvalidSecret { name, .. }
            | Self::Twice { name }
            | Self::File { name, .. } => name,
        }
    }
}

fn one_line(text: &str) -> String {
    text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Whether the value of `name` must not be shown, and may be given in a file named by `<name>_FILE`.
pub fn is_secret(name: &str) -> bool {
    SECRET_WORDS.iter().any(|word| name.contains(word)) || SECRET_URLS.contains(&name)
}

/// The environment of this process, for [`read`] and [`CommonConfig::from_vars`]: read here and nowhere else.
/// What is not UTF-8 arrives with U+FFFD in it, which [`read`] refuses by name.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .collect()
}

/// Fills `T`, a flat struct whose fields are the variables' names in lower case, best all `Option<String>`.
///
/// Only the variables named by a field are looked at. An empty one counts as unset, and a secret that is not set
/// is read from the file that `<NAME>_FILE` names, without one newline at its end.
///
/// # Errors
/// If a variable cannot be read, or does not fit a field that is no `Option<String>`.
///
/// # Panics
/// If `T` is no plain struct with named fields (`flatten` makes it a map): a bug that its first test shows.
pub fn read<T: DeserializeOwned>(vars: impl IntoIterator<Item = (String, String)>) -> Result<T, ConfigError> {
    let set: BTreeMap<String, String> =
        vars.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect();
    let names = names::of::<T>().expect("a flat struct without `flatten`");
    let mut wanted = Vec::new();
    for name in names.iter().map(|field| field.to_uppercase()) {
        if let Some(value) = value_of(&name, &set)? {
            wanted.push((name, value));
        }
    }
    envy::from_iter(wanted.iter().cloned()).map_err(|failure| blame::<T>(&wanted, failure))
}

fn value_of(name: &str, set: &BTreeMap<String, String>) -> Result<Option<String>, ConfigError> {
    let direct = set.get(name);
    let path = if is_secret(name) { set.get(&format!("{name}_FILE")) } else { None };
    let value = match (direct, path) {
        (Some(_), Some(_)) => return Err(ConfigError::Twice { name: name.into() }),
        (Some(value), None) => value.clone(),
        (None, Some(path)) => from_file(name, path)?,
        (None, None) => return Ok(None),
    };
    if value.contains('\u{FFFD}') {
        return Err(ConfigError::invalid(name, &value, "is not UTF-8"));
    }
    Ok(Some(value))
}

fn from_file(name: &str, path: &str) -> Result<String, ConfigError> {
    let wrong = |reason: &str| ConfigError::File {
        name: name.into(),
        path: one_line(path),
        reason: one_line(reason),
    };
    let text = std::fs::read_to_string(path).map_err(|failure| wrong(&failure.to_string()))?;
    // Editors and `echo` end a file with a newline that is not part of the secret.
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if text.trim().is_empty() { Err(wrong("is empty")) } else { Ok(text.to_owned()) }
}

/// Names the variable in an error of envy's: the one without which the error is another.
fn blame<T: DeserializeOwned>(wanted: &[(String, String)], failure: envy::Error) -> ConfigError {
    let text = match failure {
        envy::Error::MissingValue(field) => {
            return ConfigError::missing(&field.to_uppercase(), "it is required");
        }
        envy::Error::Custom(text) => text,
    };
    for (name, value) in wanted {
        let others = wanted.iter().filter(|(other, _)| other != name).cloned();
        let again = envy::from_iter::<_, T>(others).err();
        if again != Some(envy::Error::Custom(text.clone())) {
            let reason = text.split(" while parsing value").next().unwrap_or_default();
            return ConfigError::invalid(name, value, reason);
        }
    }
    ConfigError::missing("the environment", "it does not fit")
}
