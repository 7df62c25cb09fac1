//! What a program says of itself. It takes `--help` and `--version` and no other argument: its environment configures
//! it.

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::shutdown::{EXIT_CONFIG, run_main};

/// Of all programs alike; each has the version of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const CONFIG: &str = "docs/CONFIG.md";

/// A variable worth knowing first.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    pub name: &'static str,
    /// What holds without it; `required` if nothing does.
    pub default: &'static str,
    pub meaning: &'static str,
}

const fn variable(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning }
}

pub const REDIS_URL: Variable = variable("REDIS_URL", "required", "redis://[user:password@]host[:port][/db]");
pub const KAFKA_BROKERS: Variable = variable("KAFKA_BROKERS", "required", "host:port,host:port");
/// Of every program, after its own.
const COMMON: [Variable; 4] = [
    variable(
        "JWT_SECRET",
        "required",
        "what tokens are signed with; or JWT_PUBLIC_KEY_FILE, a key in PEM form",
    ),
    variable("SHUTDOWN_GRACE_MS", "20000", "time for an orderly stop, after SIGTERM or SIGINT"),
    variable("LOG_FORMAT", "text", "or json; the log goes to standard error"),
    variable("RUST_LOG", "info", "what is logged, such as info,roost_ws_node=debug"),
];

/// A program, as its `--help` tells of it.
#[derive(Debug, Clone, Copy)]
pub struct About {
    pub name: &'static str,
    /// What it does, in a sentence.
    pub does: &'static str,
    /// Its own, the most important first.
    pub variables: &'static [Variable],
}

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Work,
    Tell(String),
    /// Nothing that there is.
    Wrong(String),
}

impl Variable {
    /// One that a program brings itself.
    pub const fn new(name: &'static str, default: &'static str, meaning: &'static str) -> Self {
        variable(name, default, meaning)
    }
}

impl About {
    /// Answers `--help` and `--version`, refuses every other argument with one line and exit code 64, and without any
    /// runs `main` as [`run_main`] does.
    pub fn run_main<F, Fut>(&self, main: F) -> ExitCode
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = anyhow::Result<()>>,
    {
        match self.asked(std::env::args_os().skip(1)) {
            Asked::Work => run_main(self.name, main),
            Asked::Tell(text) => {
                // Who stops reading has read enough.
                let _ = writeln!(io::stdout(), "{text}");
                ExitCode::SUCCESS
            }
            Asked::Wrong(text) => {
                let _ = writeln!(io::stderr(), "{}: {text}", self.name);
                ExitCode::from(EXIT_CONFIG)
            }
        }
    }

    fn asked(&self, mut arguments: impl Iterator<Item = OsString>) -> Asked {
        let Some(argument) = arguments.next() else { return Asked::Work };
        match argument.to_str() {
            Some("--help" | "-h") => Asked::Tell(self.help()),
            Some("--version" | "-V") => Asked::Tell(format!("{} {VERSION}", self.name)),
            _ => Asked::Wrong(format!(
                "there is no argument {argument:?}: its environment configures it ({} --help)",
                self.name
            )),
        }
    }

    fn help(&self) -> String {
        let Self { name, does, variables } = self;
        let row = |v: &Variable| format!("  {:<22} {:<15} {}\n", v.name, v.default, v.meaning);
        let rows: String = variables.iter().chain(&COMMON).map(row).collect();
        format!(
            "{name} {VERSION}\n{does}\n\nUsage: {name} [--help | --version]\n\n\
             It reads its environment when it starts; {CONFIG} has every variable. The most important ones, with \
             their\ndefaults:\n\n{rows}\n\
             What is wrong with one ends it with one line and exit code 64. A secret can be in a file instead: \
             JWT_SECRET_FILE.\n\
             Without Kafka, Redis and PostgreSQL, `roost dev` is a whole cluster in one process."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: About = About { name: "demo", does: "Shows how it is.", variables: &[REDIS_URL] };

    fn asked(arguments: &[&str]) -> Asked {
        DEMO.asked(arguments.iter().map(OsString::from))
    }

    #[test]
    fn it_works_without_arguments_and_says_what_there_is_with_those_it_knows() {
        assert_eq!(asked(&[]), Asked::Work);
        assert_eq!(asked(&["--version"]), Asked::Tell(format!("demo {VERSION}")));
        assert_eq!(asked(&["-V"]), asked(&["--version"]));
        assert_eq!(asked(&["-h", "--else"]), asked(&["--help"]));
        let Asked::Tell(help) = asked(&["--help"]) else { panic!("no help") };
        for part in ["Shows how it is.", VERSION, CONFIG, "REDIS_URL", "JWT_SECRET", "SHUTDOWN_GRACE_MS"] {
            assert!(help.contains(part), "{part} is not in {help}");
        }
    }

    #[test]
    fn any_other_argument_is_refused_in_one_line() {
        for argument in ["--port", "help", "", "--help=yes", "two\nlines"] {
            let Asked::Wrong(text) = asked(&[argument]) else { panic!("{argument:?} was taken") };
            assert!(text.lines().count() == 1 && text.contains("demo --help"), "{text}");
        }
    }
}
