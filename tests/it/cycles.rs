//! Checks that no crate has an import cycle: no two files need each other's definitions, directly or
//! indirectly.
//!
//! A file needs what it names: in a private `use`, in a path, or in a macro's arguments. A `pub use` counts
//! for the file that has the definition, so a parent that declares and re-exports its children needs none of
//! them. Methods do not count: a type may have them in several files. Code that is compiled for tests only
//! does not count either.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, Macro, UseTree, Visibility};

/// All files below `folder` that end with `.rs`.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The files of a crate: paths below its `src/`, with their text.
type Sources = BTreeMap<String, String>;
type Names = Vec<String>;
type Modules = BTreeMap<Names, Module>;
/// Edges between files, each with a name that the first uses from the second.
type Edges = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Default)]
struct Module {
    file: String,
    /// The names that each `use` brings into scope.
    scope: BTreeMap<String, Names>,
    needs: Vec<Names>,
}

struct ImportReader<'a> {
    sources: &'a Sources,
    modules: Modules,
    at: Names,
    file: String,
}

impl ImportReader<'_> {
    /// Reads the file of the module at this position.
    fn read(&mut self) {
        let place = self.at.join("/");
        let files = match &*place {
            "" => ["lib.rs".to_owned(), "main.rs".to_owned()],
            place => [format!("{place}.rs"), format!("{place}/mod.rs")],
        };
        let file = files.into_iter().find(|file| self.sources.contains_key(file)).unwrap();
        let text = &self.sources[&file];
        let above = std::mem::replace(&mut self.file, format!("src/{file}"));
        self.module();
        self.visit_file(&syn::parse_file(text).unwrap());
        self.file = above;
    }

    fn module(&mut self) -> &mut Module {
        let new = || Module { file: self.file.clone(), ..Module::default() };
        self.modules.entry(self.at.clone()).or_insert_with(new)
    }

    fn bring(&mut self, tree: &UseTree, mut path: Names, is_private: bool) {
        let (name, last) = match tree {
            UseTree::Path(to) => {
                path.push(to.ident.to_string());
                return self.bring(&to.tree, path, is_private);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.bring(tree, path.clone(), is_private));
            }
            UseTree::Name(name) if name.ident == "self" => (path[path.len() - 1].clone(), None),
            UseTree::Name(name) => (name.ident.to_string(), Some(name.ident.to_string())),
            UseTree::Rename(name) => (name.rename.to_string(), Some(name.ident.to_string())),
            UseTree::Glob(_) => ("*".to_owned(), Some("*".to_owned())),
        };
        path.extend(last);
        let module = self.module();
        module.needs.extend(is_private.then(|| path.clone()));
        module.scope.insert(name, path);
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl Visit<'_> for ImportReader<'_> {
    fn visit_item(&mut self, item: &Item) {
        let is_for = |attribute: &Attribute| {
            let when = attribute.path().is_ident("cfg").then(|| attribute.parse_args::<syn::Path>());
            when.is_some_and(|when| when.is_ok_and(|when| when.is_ident("test") || when.is_ident("doctest")))
        };
        if !attributes(item).iter().any(is_for) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &ItemUse) {
        self.bring(&item.tree, Names::new(), matches!(item.vis, Visibility::Inherited));
    }

    fn visit_item_mod(&mut self, item: &ItemMod) {
        self.at.push(item.ident.to_string());
        if item.content.is_some() {
            visit::visit_item_mod(self, item)
        } else {
            self.read()
        }
        self.at.pop();
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.module().needs.push(names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &Macro) {
        visit::visit_macro(self, called);
        let text = called.tokens.to_string().replace(" :: ", "::");
        let words = text.split(|c: char| !c.is_alphanumeric() && !"_:".contains(c));
        self.module().needs.extend(words.map(|word| word.split("::").map(str::to_owned).collect()));
    }
}

/// The file that defines the first name in `path` after its modules, as seen from the module `at`, and that
/// name. A name that is neither a module nor in scope is taken for the module's own or for another crate's,
/// which ties nothing.
fn definer(modules: &Modules, at: &[String], path: &[String]) -> Option<(String, String)> {
    let (first, rest) = path.split_first()?;
    let child = [at, std::slice::from_ref(first)].concat();
    match (first.as_str(), modules[at].scope.get(first)) {
        ("crate", _) => definer(modules, &[], rest),
        ("self", _) => definer(modules, at, rest),
        ("super", _) => definer(modules, at.split_last()?.1, rest),
        _ if modules.contains_key(&child) => definer(modules, &child, rest),
        (_, Some(to)) if to[0] != *first => definer(modules, at, &[to, rest].concat()),
        (name, _) => Some((modules[at].file.clone(), name.to_owned())),
    }
}

fn edges(sources: &Sources) -> Edges {
    let mut reader = ImportReader { sources, modules: Modules::new(), at: Names::new(), file: String::new() };
    reader.read();
    let mut edges = Edges::new();
    for (at, module) in &reader.modules {
        let needed = module.needs.iter().filter_map(|path| definer(&reader.modules, at, path));
        let needed = needed.filter(|(file, _)| *file != module.file);
        edges.entry(module.file.clone()).or_default().extend(needed);
    }
    edges
}

/// The shortest cycle through `start`.
fn shortest_cycle<'a>(edges: &'a Edges, start: &'a String) -> Option<Vec<&'a String>> {
    let (mut seen, mut ways) = (BTreeSet::new(), VecDeque::from([vec![start]]));
    while let Some(cycle) = ways.pop_front() {
        let next = &edges[cycle[cycle.len() - 1]];
        if next.contains_key(start) {
            return Some(cycle);
        }
        ways.extend(next.keys().filter(|to| seen.insert(*to)).map(|to| [&cycle[..], &[to]].concat()));
    }
    None
}

/// The shortest cycle of each file, shortest first, as `src/a.rs -> src/b.rs (Name) -> src/a.rs (Name)`.
fn shortest_cycles(edges: &Edges) -> Vec<String> {
    let describe = |mut cycle: Vec<&String>| {
        let first = (0..cycle.len()).min_by_key(|index| cycle[*index]).unwrap();
        cycle.rotate_left(first);
        let next = cycle.iter().cycle().skip(1);
        let steps = cycle.iter().zip(next).map(|(from, to)| format!(" -> {to} ({})", edges[*from][*to]));
        format!("{}{}", cycle[0], steps.collect::<String>())
    };
    let all: BTreeSet<_> =
        edges.keys().filter_map(|start| shortest_cycle(edges, start)).map(describe).collect();
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|shortest_cycle| shortest_cycle.matches(" -> ").count());
    all
}

#[test]
fn no_two_files_import_each_other_directly_or_indirectly() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["", "crates/core", "crates/sandbox", "crates/simulation", "crates/testkit", "xtask"] {
        let folder = root.join(folder).join("src");
        let name = |path: &Path| path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
        let read = |path: &PathBuf| (name(path), std::fs::read_to_string(path).unwrap());
        let edges = edges(&sources(&folder).iter().map(read).collect());
        assert!(edges.values().any(|edges| !edges.is_empty()), "{} was not read", folder.display());
        let mut found = shortest_cycles(&edges);
        found.truncate(5);
        let describe = found.join("\n");
        assert!(
            found.is_empty(),
            "{}: move what both need into a file below both:\n{describe}",
            folder.display()
        );
    }
}

#[test]
fn a_cycle_is_reported_by_its_files_and_by_what_ties_them() {
    let tree = [
        ("lib.rs", "mod a;\nmod b;\nmod c;\nmod lone;\npub use b::B;"),
        ("a.rs", "use crate::{B as Other, lone};\npub struct A(Other);\nfn f() { lone::f() }"),
        ("b.rs", "pub struct B;\nfn f() { println!(\"{}\", super::c::inner::make()); }"),
        ("c/mod.rs", "pub mod inner;\nmod child;\npub struct C;\nfn f(_: child::D) {}\npub use child::D;"),
        ("c/inner.rs", "pub fn make() -> crate::a::A { todo!() }"),
        ("c/child.rs", "use super::C;\npub struct D(C);"),
        // Comments, tests, re-exports and another crate of the same name do not count.
        (
            "lone.rs",
            "mod below;\npub use below::f;\npub struct L; // crate::a::A\n#[cfg(test)]\nuse crate::a::A;",
        ),
        ("lone/below.rs", "use b::B;\nuse super::L;\npub fn f() -> L { L }"),
    ];
    let sources = tree.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
    assert_eq!(
        shortest_cycles(&edges(&sources)),
        [
            "src/c/child.rs -> src/c/mod.rs (C) -> src/c/child.rs (D)",
            "src/a.rs -> src/b.rs (B) -> src/c/inner.rs (make) -> src/a.rs (A)",
        ]
    );
}
