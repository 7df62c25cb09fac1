//! What has a size: the fields of a struct, the variants of an enum, the lines of a function; and what is open that
//! an owner should keep to itself.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};
use syn::{Fields, Item, ItemEnum, ItemStruct, Visibility};

use super::imports::{Found, HOPS_MAX};
use super::source::{Crate, ModuleId};

/// Fields of the struct of that name in a file below `under`, as `file:line name`.
pub(crate) fn fields(of: &Crate, under: &str, name: &str) -> Vec<String> {
    let (module, item) = structs(of)
        .find(|(module, item)| item.ident == name && of.modules[*module].file.starts_with(under))
        .unwrap_or_else(|| {
            panic!("no struct {name} in {under}: mend the names in tests/tests/walls/house.rs")
        });
    let file = &of.modules[module].file;
    item.fields
        .iter()
        .filter_map(|field| field.ident.as_ref())
        .map(|field| format!("{file}:{} {field}", field.span().start().line))
        .collect()
}

/// Variants of the first of these enums that there is in a file below `under`: one of them is what it is called today.
pub(crate) fn variants(of: &Crate, under: &str, names: &[&str]) -> Vec<String> {
    let below = |module: ModuleId| of.modules[module].file.starts_with(under);
    let named = |name: &&&str| enums(of).find(|(module, item)| below(*module) && item.ident == **name);
    let (module, item) = names.iter().find_map(|name| named(&name)).unwrap_or_else(|| {
        panic!("no enum {} in {under}: mend the names in tests/tests/walls/house.rs", names.join(" or "))
    });
    let file = &of.modules[module].file;
    let shown =
        |v: &syn::Variant| format!("{file}:{} {}::{}", v.ident.span().start().line, item.ident, v.ident);
    item.variants.iter().map(shown).collect()
}

/// The types that fields of `whole` hold and that let all files below `under` at a field of theirs.
/// Newtypes are no owners, and `but` may be open.
pub(crate) fn open_owners(of: &Crate, under: &str, whole: &str, but: &[&str]) -> Vec<String> {
    let Some((home, item)) =
        structs(of).find(|(m, item)| item.ident == whole && of.modules[*m].file.starts_with(under))
    else {
        panic!("no struct {whole} in {under}: mend the names in tests/tests/walls/house.rs");
    };
    let mut types = Types::default();
    item.fields.iter().for_each(|field| types.visit_type(&field.ty));
    let held = types.0.into_iter().filter_map(|path| of.resolve(home, &path, &[], HOPS_MAX));
    let held: BTreeSet<(ModuleId, String)> = held
        .filter_map(|found| if let Found::Name(module, name) = found { Some((module, name)) } else { None })
        .filter(|(module, name)| of.modules[*module].file.starts_with(under) && !but.contains(&name.as_str()))
        .collect();
    let owners = structs(of).filter(|(module, item)| held.contains(&(*module, item.ident.to_string())));
    owners.filter_map(|(module, item)| open_fields(of, home, module, item)).collect()
}

/// The fields of a struct that can be reached from the module `room`, if there are any.
fn open_fields(of: &Crate, room: ModuleId, module: ModuleId, item: &ItemStruct) -> Option<String> {
    let Fields::Named(fields) = &item.fields else { return None };
    let open = fields.named.iter().filter(|field| is_open(of, room, module, &field.vis));
    let names: Vec<_> = open.filter_map(|field| field.ident.as_ref()).map(ToString::to_string).collect();
    let (file, line) = (&of.modules[module].file, item.ident.span().start().line);
    (!names.is_empty()).then(|| format!("{file}:{line} {}: {}", item.ident, names.join(", ")))
}

/// `pub(super)` is a wall only in a folder of one's own: beside the others it opens the field to all of them.
fn is_open(of: &Crate, room: ModuleId, module: ModuleId, vis: &Visibility) -> bool {
    let Visibility::Restricted(within) = vis else { return matches!(vis, Visibility::Public(_)) };
    let path: Vec<_> = within.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    match of.resolve(module, &path, &[], HOPS_MAX) {
        Some(Found::Module(seen_in)) => of.is_within(room, seen_in),
        _ => true,
    }
}

fn structs(of: &Crate) -> impl Iterator<Item = (ModuleId, &ItemStruct)> {
    of.items().filter_map(|(module, item)| if let Item::Struct(s) = item { Some((module, s)) } else { None })
}

fn enums(of: &Crate) -> impl Iterator<Item = (ModuleId, &ItemEnum)> {
    of.items().filter_map(|(module, item)| if let Item::Enum(e) = item { Some((module, e)) } else { None })
}

/// The paths in a type, those of its parameters too.
#[derive(Debug, Default)]
struct Types(Vec<Vec<String>>);

impl<'ast> Visit<'ast> for Types {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

/// Functions of more than `max` lines, from the line of their `fn` to that of their last brace.
pub(crate) fn long_functions(of: &Crate, max: usize) -> Vec<String> {
    let mut long = Vec::new();
    for (module, item) in of.items() {
        let file = &of.modules[module].file;
        let mut functions = Functions::default();
        functions.visit_item(item);
        let over = functions.0.into_iter().filter(|(_, first, last)| last - first + 1 > max);
        long.extend(
            over.map(|(name, first, last)| format!("{file}:{first} {name}: {} lines", last - first + 1)),
        );
    }
    long
}

#[derive(Debug, Default)]
struct Functions(Vec<(String, usize, usize)>);

impl Functions {
    fn add(&mut self, sig: &syn::Signature, block: &syn::Block) {
        let first = sig.fn_token.span.start().line;
        self.0.push((sig.ident.to_string(), first, block.brace_token.span.close().end().line));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}
