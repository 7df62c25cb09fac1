//! How often one thing is spelled: the places in which a variant is defined or named.
//!
//! An arm of a `match` is one place, however often it names the variant: what it is turned into stands beside it.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::imports::paths_in;
use super::source::Crate;

/// `Enum::Variant`, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mention {
    pub of: String,
    pub variant: String,
    pub file: String,
    /// Of the arm, if it is in one.
    pub line: usize,
}

/// Where the variants of these enums are defined or named in a crate.
pub(crate) fn mentions(of: &Crate, enums: &[&str]) -> Vec<Mention> {
    let mut found = Vec::new();
    for (module, item) in of.items() {
        let file = of.modules[module].file.clone();
        let mut reader = Reader { enums, file, arms: Vec::new(), own: Vec::new(), found: Vec::new() };
        reader.visit_item(item);
        found.append(&mut reader.found);
    }
    found
}

/// The places, as `file:line`, of any of these `(enum, variant)`.
pub(crate) fn places(mentions: &[Mention], any_of: &[(&str, &str)]) -> BTreeSet<String> {
    let meant = |m: &&Mention| any_of.contains(&(m.of.as_str(), m.variant.as_str()));
    mentions.iter().filter(meant).map(|m| format!("{}:{}", m.file, m.line)).collect()
}

struct Reader<'a> {
    enums: &'a [&'a str],
    file: String,
    /// The lines of the arms around, innermost last.
    arms: Vec<usize>,
    /// Whose `impl` this is: what `Self` means.
    own: Vec<Option<String>>,
    found: Vec<Mention>,
}

impl Reader<'_> {
    fn path(&mut self, path: &[String], line: usize) {
        let [.., of, variant] = path else { return };
        let own = self.own.last().cloned().flatten();
        let Some(of) = (if of == "Self" { own } else { Some(of.clone()) }) else { return };
        self.mention(of, variant.clone(), line);
    }

    fn mention(&mut self, of: String, variant: String, line: usize) {
        if self.enums.contains(&of.as_str()) {
            let line = self.arms.last().copied().unwrap_or(line);
            self.found.push(Mention { of, variant, file: self.file.clone(), line });
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        for variant in &item.variants {
            let line = variant.ident.span().start().line;
            self.mention(item.ident.to_string(), variant.ident.to_string(), line);
        }
        visit::visit_item_enum(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let own = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        self.own.push(own);
        visit::visit_item_impl(self, item);
        self.own.pop();
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        self.arms.push(arm.fat_arrow_token.spans[0].start().line);
        visit::visit_arm(self, arm);
        self.arms.pop();
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.path(&names, line_of(path));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, of: &'ast syn::Macro) {
        visit::visit_macro(self, of);
        for (path, line) in paths_in(&of.tokens) {
            self.path(&path, line);
        }
    }
}

fn line_of(path: &syn::Path) -> usize {
    path.segments[0].ident.span().start().line
}

/// The calls of a macro of that name, as `file:line`.
pub(crate) fn calls(of: &Crate, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (module, item) in of.items() {
        let mut calls = Calls { name, lines: Vec::new() };
        calls.visit_item(item);
        found.extend(calls.lines.iter().map(|line| format!("{}:{line}", of.modules[module].file)));
    }
    found
}

struct Calls<'a> {
    name: &'a str,
    lines: Vec<usize>,
}

impl Calls<'_> {
    /// A macro may be called in what another is given.
    fn inside(&mut self, tokens: &TokenStream) {
        let mut tokens = tokens.clone().into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Group(group) => self.inside(&group.stream()),
                TokenTree::Ident(ident) if ident == self.name => {
                    if matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == '!') {
                        self.lines.push(ident.span().start().line);
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Calls<'_> {
    fn visit_macro(&mut self, of: &'ast syn::Macro) {
        if of.path.segments.last().is_some_and(|last| last.ident == self.name) {
            self.lines.push(line_of(&of.path));
        }
        self.inside(&of.tokens);
        visit::visit_macro(self, of);
    }
}

/// The variants of an enum that a macro makes: what stands behind each `=>` in the braces after its name.
pub(crate) fn made_variants(of: &Crate, name: &str) -> Vec<String> {
    let macros =
        of.items().filter_map(|(_, item)| if let syn::Item::Macro(m) = item { Some(m) } else { None });
    macros.flat_map(|m| behind_arrows(name, &m.mac.tokens)).collect()
}

fn behind_arrows(name: &str, tokens: &TokenStream) -> Vec<String> {
    let tokens: Vec<_> = tokens.clone().into_iter().collect();
    let body = tokens.windows(2).find_map(|pair| match pair {
        [TokenTree::Ident(ident), TokenTree::Group(body)] if ident == name => Some(body.stream()),
        _ => None,
    });
    let body: Vec<_> = body.into_iter().flatten().collect();
    let behind = body.windows(2).filter_map(|pair| match pair {
        [TokenTree::Punct(arrow), TokenTree::Ident(variant)] if arrow.as_char() == '>' => Some(variant),
        _ => None,
    });
    behind.map(ToString::to_string).collect()
}
