//! What the command line prints. Whoever reads it may stop reading: a closed pipe ends the program without a word, as
//! it ends `cat`, once what it was asked to do is done.
//!
//! `println!` panics there, so nothing here uses it: [`say!`] prints a line of what was asked for, [`note!`] one beside
//! it, on standard error.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::process::exit;

use roost_service::shutdown::EXIT_FAILURE;

/// A line on standard output.
macro_rules! say {
    ($($text:tt)*) => { $crate::out::line(format_args!($($text)*)) };
}

/// A line on standard error.
macro_rules! note {
    ($($text:tt)*) => { $crate::out::remark(format_args!($($text)*)) };
}

pub(crate) use {note, say};

pub(crate) fn line(text: Arguments<'_>) {
    written(writeln!(io::stdout(), "{text}"));
}

/// That nobody reads remarks is no reason to leave what is under way: the exit code tells how it went.
pub(crate) fn remark(text: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Bytes as they are, on standard output.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = io::stdout();
    written(out.write_all(bytes).and_then(|()| out.flush()));
}

/// Ends the program if nobody reads any more, or nothing can be written.
fn written(outcome: io::Result<()>) {
    match outcome {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit(0),
        Err(error) => {
            // Standard error may be as full: then there is nobody to tell.
            let _ = writeln!(io::stderr(), "roost: cannot write: {error}");
            exit(EXIT_FAILURE.into());
        }
    }
}
