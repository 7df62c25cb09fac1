//! Which file takes names from which: the paths of `use` and those in the text, each led to the file that defines it.
//!
//! A `mod x;` is no import, nor is a module named alone: what counts is what is taken out of it. Calls of methods are
//! not seen.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::source::{Crate, Import, ModuleId, imports_of};

/// For each file those from which it takes something, and the names it takes.
pub(crate) type Graph = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Re-exports of re-exports, at most: a guard against those that go round.
pub(crate) const HOPS_MAX: usize = 16;

pub(crate) fn graph(of: &Crate) -> Graph {
    let mut graph = Graph::new();
    for (id, module) in of.modules.iter().enumerate() {
        let taken = graph.entry(module.file.clone()).or_default();
        let mut paths = Paths::default();
        module.items.iter().for_each(|item| paths.visit_item(item));
        for path in paths.found {
            let Some(Found::Name(at, name)) = of.resolve(id, &path, &paths.local, HOPS_MAX) else { continue };
            let file = &of.modules[at].file;
            if *file != module.file {
                taken.entry(file.clone()).or_default().insert(name);
            }
        }
    }
    graph
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Module(ModuleId),
    /// Something that this module defines.
    Name(ModuleId, String),
}

impl Crate {
    /// What `path`, written in `from`, leads to; `None` for what is of another crate.
    /// `local`: what is imported inside of functions there.
    pub(crate) fn resolve(
        &self,
        from: ModuleId,
        path: &[String],
        local: &[Import],
        hops: usize,
    ) -> Option<Found> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Found::Module(self.modules[from].root),
            "self" => Found::Module(from),
            "super" => Found::Module(self.modules[from].parent?),
            name => self.named(from, name, local, hops)?,
        };
        while let (Found::Module(module), Some((next, after))) = (&at, rest.split_first()) {
            at = match next.as_str() {
                "super" => Found::Module(self.modules[*module].parent?),
                "*" => Found::Name(*module, "*".to_owned()),
                // What no item defines and no `use` names is made by a macro there.
                name => self.named(*module, name, &[], hops).unwrap_or(Found::Name(*module, name.to_owned())),
            };
            rest = after;
        }
        Some(at)
    }

    /// What a name means in a module.
    fn named(&self, module: ModuleId, name: &str, local: &[Import], hops: usize) -> Option<Found> {
        let hops = hops.checked_sub(1)?;
        if let Some(child) = self.child(module, name) {
            return Some(Found::Module(child));
        }
        let known = &self.modules[module];
        if known.names.contains(name) {
            return Some(Found::Name(module, name.to_owned()));
        }
        let mut imports = known.imports.iter().chain(local);
        if let Some(import) = imports.clone().find(|import| import.name.as_deref() == Some(name)) {
            // In `use bytes::bytes` the first is a crate, not the name that is imported.
            let of_a_crate = import.path.first().is_some_and(|first| first == name);
            return if of_a_crate { None } else { self.resolve(module, &import.path, &[], hops) };
        }
        imports.find_map(|import| {
            if import.name.is_some() {
                return None;
            }
            let Some(Found::Module(of)) = self.resolve(module, &import.path, &[], hops) else { return None };
            self.named(of, name, &[], hops)
        })
    }
}

/// Every path of an item, those of `use` and those inside of macros too.
#[derive(Debug, Default)]
struct Paths {
    found: Vec<Vec<String>>,
    /// What functions import for themselves.
    local: Vec<Import>,
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for import in imports_of(&item.tree) {
            let mut path = import.path.clone();
            if import.name.is_none() {
                path.push("*".to_owned());
            }
            self.found.push(path);
            self.local.push(import);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        // A single name is defined here, or a `use` has brought it.
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            self.found.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, of: &'ast syn::Macro) {
        visit::visit_macro(self, of);
        self.found.extend(paths_in(&of.tokens).into_iter().map(|(path, _)| path));
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

/// The paths of two names and more in what a macro is given, each with its line.
pub(crate) fn paths_in(tokens: &TokenStream) -> Vec<(Vec<String>, usize)> {
    let mut found = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let (mut line, mut colons) = (0, 0);
    for token in tokens.clone() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                colons += 1;
                continue;
            }
            TokenTree::Ident(ident) => {
                if colons != 2 {
                    close(&mut found, &mut path, line);
                    line = ident.span().start().line;
                }
                path.push(ident.to_string());
            }
            TokenTree::Group(group) => {
                close(&mut found, &mut path, line);
                found.extend(paths_in(&group.stream()));
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => close(&mut found, &mut path, line),
        }
        colons = 0;
    }
    close(&mut found, &mut path, line);
    found
}

fn close(found: &mut Vec<(Vec<String>, usize)>, path: &mut Vec<String>, line: usize) {
    let path = std::mem::take(path);
    if path.len() > 1 {
        found.push((path, line));
    }
}
