//! The sources of one crate as they are compiled into its product: its modules, found from `mod` to `mod`, each with
//! its items. What only tests see is left out where it is read, so that nothing below has to think of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use syn::{Attribute, ImplItem, Item, Meta, UseTree};

/// A suite that holds back ends to their traits is a test, though a library has it.
const SUITES: &[&str] = &["crates/backend/src/contract"];

/// A module of a crate, by its index in [`Crate::modules`].
pub(crate) type ModuleId = usize;

/// What a `use` brings into a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    /// The name it has here; `None` for everything there is (`*`).
    pub name: Option<String>,
    pub path: Vec<String>,
}

pub(crate) struct Module {
    pub parent: Option<ModuleId>,
    /// The crate's root: `lib.rs` or `main.rs`.
    pub root: ModuleId,
    pub children: Vec<(String, ModuleId)>,
    /// Relative to the workspace, with `/`.
    pub file: String,
    /// Without those of modules inside.
    pub items: Vec<Item>,
    pub imports: Vec<Import>,
    /// What is defined here.
    pub names: BTreeSet<String>,
}

#[derive(Default)]
pub(crate) struct Crate {
    pub modules: Vec<Module>,
}

/// Where the modules of a module are looked for.
struct Place<'a> {
    file: &'a Path,
    children: PathBuf,
}

impl Crate {
    /// The library and the program below `source`, a directory of the workspace `root`.
    pub(crate) fn read(root: &Path, source: &str) -> Self {
        let mut read = Self::default();
        for name in ["lib.rs", "main.rs"] {
            let file = root.join(source).join(name);
            if file.is_file() {
                read.read_file(root, &file, None);
            }
        }
        assert!(!read.modules.is_empty(), "{source} has neither lib.rs nor main.rs");
        read
    }

    /// A crate of these files, its root first and each after what it is in.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let mut read = Self::default();
        let (name, text) = files[0];
        let items = parse(Path::new(name), text);
        let root = read.add(None, name.to_owned(), items);
        for (name, text) in &files[1..] {
            let path: Vec<_> = name.trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect();
            let (own, above) = path.split_last().expect("a name");
            let parent = above.iter().fold(root, |at, seg| read.child(at, seg).expect("parents come first"));
            let module = read.add(Some(parent), (*name).to_owned(), parse(Path::new(name), text));
            read.modules[parent].children.push(((*own).to_owned(), module));
        }
        read
    }

    /// Every item, with the module that it is in.
    pub(crate) fn items(&self) -> impl Iterator<Item = (ModuleId, &Item)> {
        let modules = self.modules.iter().enumerate();
        modules.flat_map(|(id, module)| module.items.iter().map(move |item| (id, item)))
    }

    /// Whether `inner` is `outer`, or somewhere in it.
    pub(crate) fn is_within(&self, inner: ModuleId, outer: ModuleId) -> bool {
        std::iter::successors(Some(inner), |at| self.modules[*at].parent).any(|at| at == outer)
    }

    pub(crate) fn child(&self, of: ModuleId, name: &str) -> Option<ModuleId> {
        let child = self.modules[of].children.iter().find(|(child, _)| child == name);
        child.map(|(_, module)| *module)
    }

    fn read_file(&mut self, root: &Path, file: &Path, parent: Option<ModuleId>) -> ModuleId {
        let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let shown = file.strip_prefix(root).expect("it is in the workspace").display().to_string();
        let items = parse(file, &text);
        let (mods, items) = items.into_iter().partition(|item| matches!(item, Item::Mod(_)));
        let module = self.add(parent, shown, items);
        let dir = file.parent().expect("a file is in a directory");
        let stem = file.file_stem().expect("a file has a name");
        // `lib.rs`, `main.rs` and `mod.rs` have their modules beside them, others in a directory of their name.
        let beside = ["lib", "main", "mod"].iter().any(|name| stem == *name);
        let children = if beside { dir.to_owned() } else { dir.join(stem) };
        self.read_modules(root, module, mods, &Place { file, children });
        module
    }

    fn read_modules(&mut self, root: &Path, parent: ModuleId, mods: Vec<Item>, place: &Place<'_>) {
        for item in mods {
            let Item::Mod(item) = item else { continue };
            let name = item.ident.to_string();
            if SUITES.iter().any(|suite| place.children.join(&name) == root.join(suite)) {
                continue;
            }
            let child = match item.content {
                None => {
                    let file = file_of(&item.attrs, &name, place);
                    self.read_file(root, &file, Some(parent))
                }
                Some((_, items)) => {
                    let (mods, items) = items.into_iter().partition(|item| matches!(item, Item::Mod(_)));
                    let child = self.add(Some(parent), self.modules[parent].file.clone(), items);
                    let place = Place { file: place.file, children: place.children.join(&name) };
                    self.read_modules(root, child, mods, &place);
                    child
                }
            };
            self.modules[parent].children.push((name, child));
        }
    }

    fn add(&mut self, parent: Option<ModuleId>, file: String, items: Vec<Item>) -> ModuleId {
        let id = self.modules.len();
        let root = parent.map_or(id, |parent| self.modules[parent].root);
        let names = items.iter().filter_map(name_of).collect();
        let imports = items.iter().filter_map(|item| if let Item::Use(u) = item { Some(u) } else { None });
        let imports = imports.flat_map(|u| imports_of(&u.tree)).collect();
        self.modules.push(Module { parent, root, children: Vec::new(), file, items, imports, names });
        id
    }
}

fn file_of(attrs: &[Attribute], name: &str, place: &Place<'_>) -> PathBuf {
    if let Some(path) = attrs.iter().find_map(path_attribute) {
        return place.file.parent().expect("a file is in a directory").join(path);
    }
    let flat = place.children.join(format!("{name}.rs"));
    if flat.is_file() { flat } else { place.children.join(name).join("mod.rs") }
}

fn path_attribute(attr: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attr.meta else { return None };
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) = &pair.value else { return None };
    pair.path.is_ident("path").then(|| path.value())
}

fn parse(file: &Path, text: &str) -> Vec<Item> {
    let parsed = syn::parse_file(text).unwrap_or_else(|e| {
        let at = e.span().start();
        panic!("{}:{}: {e}", file.display(), at.line)
    });
    without_tests(parsed.items)
}

fn without_tests(items: Vec<Item>) -> Vec<Item> {
    let kept = items.into_iter().filter(|item| !attributes(item).iter().any(is_for_tests));
    kept.map(|mut item| {
        match &mut item {
            Item::Mod(module) => {
                if let Some((_, items)) = &mut module.content {
                    *items = without_tests(std::mem::take(items));
                }
            }
            Item::Impl(block) => block.items.retain(|item| !in_impl(item).iter().any(is_for_tests)),
            _ => {}
        }
        item
    })
    .collect()
}

/// `#[cfg(test)]`, or a feature that only tests switch on.
fn is_for_tests(attr: &Attribute) -> bool {
    let Meta::List(list) = &attr.meta else { return false };
    let condition = list.tokens.to_string().replace(' ', "");
    list.path.is_ident("cfg") && ["test", "feature=\"simulation\""].contains(&condition.as_str())
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

fn in_impl(item: &ImplItem) -> &[Attribute] {
    match item {
        ImplItem::Const(i) => &i.attrs,
        ImplItem::Fn(i) => &i.attrs,
        ImplItem::Type(i) => &i.attrs,
        _ => &[],
    }
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(i) => &i.ident,
        Item::Enum(i) => &i.ident,
        Item::Fn(i) => &i.sig.ident,
        Item::Static(i) => &i.ident,
        Item::Struct(i) => &i.ident,
        Item::Trait(i) => &i.ident,
        Item::Type(i) => &i.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// The leaves of a `use`.
pub(crate) fn imports_of(tree: &UseTree) -> Vec<Import> {
    let mut found = Vec::new();
    leaves(tree, &mut Vec::new(), &mut found);
    found
}

fn leaves(tree: &UseTree, above: &mut Vec<String>, found: &mut Vec<Import>) {
    match tree {
        UseTree::Path(path) => {
            above.push(path.ident.to_string());
            leaves(&path.tree, above, found);
            above.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, above, found)),
        UseTree::Glob(_) => found.push(Import { name: None, path: above.clone() }),
        UseTree::Name(name) => found.push(import(&name.ident.to_string(), None, above)),
        UseTree::Rename(rename) => {
            found.push(import(&rename.ident.to_string(), Some(rename.rename.to_string()), above));
        }
    }
}

fn import(last: &str, renamed: Option<String>, above: &[String]) -> Import {
    let mut path = above.to_vec();
    // `a::{self}` is `a`.
    if last != "self" {
        path.push(last.to_owned());
    }
    let name = renamed.or_else(|| path.last().cloned());
    Import { name, path }
}
