//! Holds every crate to be without circles: no two files need what the other defines, straight or round about.
//!
//! A file needs what it names: in a private `use`, in a path, in a macro's arguments. What is handed on by a `pub use`
//! counts where it is defined, so a parent that declares and re-exports its children needs none of them. Methods do not
//! count: a type may have them in several files. What is compiled for tests only does not, either.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, Macro, UseTree, Visibility};

/// The files of `folder` and below that end with `.rs`.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The files of a crate: the path of each below its `src/`, and its text.
type Sources = BTreeMap<String, String>;
type Names = Vec<String>;
type Modules = BTreeMap<Names, Module>;
/// From file to file, with a name that the first takes from the second.
type Arrows = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Default)]
struct Module {
    file: String,
    /// What each `use` brings into scope.
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
    /// Reads the file of the module where it is.
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

/// The file that defines what `path`, as seen from the module `at`, names first behind its modules, and that name. What is
/// neither a module nor in scope is taken for the module's own, or for another crate's, which ties nothing.
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

fn arrows(sources: &Sources) -> Arrows {
    let mut reader = ImportReader { sources, modules: Modules::new(), at: Names::new(), file: String::new() };
    reader.read();
    let mut arrows = Arrows::new();
    for (at, module) in &reader.modules {
        let needed = module.needs.iter().filter_map(|path| definer(&reader.modules, at, path));
        let needed = needed.filter(|(file, _)| *file != module.file);
        arrows.entry(module.file.clone()).or_default().extend(needed);
    }
    arrows
}

/// The shortest way from `start` back to it.
fn circle<'a>(arrows: &'a Arrows, start: &'a String) -> Option<Vec<&'a String>> {
    let (mut seen, mut ways) = (BTreeSet::new(), VecDeque::from([vec![start]]));
    while let Some(way) = ways.pop_front() {
        let next = &arrows[way[way.len() - 1]];
        if next.contains_key(start) {
            return Some(way);
        }
        ways.extend(next.keys().filter(|to| seen.insert(*to)).map(|to| [&way[..], &[to]].concat()));
    }
    None
}

/// Every file's shortest circle, the shortest first, as `src/a.rs -> src/b.rs (Name) -> src/a.rs (Name)`.
fn circles(arrows: &Arrows) -> Vec<String> {
    let told = |mut way: Vec<&String>| {
        let first = (0..way.len()).min_by_key(|index| way[*index]).unwrap();
        way.rotate_left(first);
        let next = way.iter().cycle().skip(1);
        let steps = way.iter().zip(next).map(|(from, to)| format!(" -> {to} ({})", arrows[*from][*to]));
        format!("{}{}", way[0], steps.collect::<String>())
    };
    let all: BTreeSet<_> = arrows.keys().filter_map(|start| circle(arrows, start)).map(told).collect();
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|circle| circle.matches(" -> ").count());
    all
}

#[test]
fn no_two_files_import_each_other_straight_or_round_about() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["", "crates/core", "crates/sandbox", "crates/simulation", "crates/testkit", "xtask"] {
        let folder = root.join(folder).join("src");
        let name = |path: &Path| path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
        let read = |path: &PathBuf| (name(path), std::fs::read_to_string(path).unwrap());
        let arrows = arrows(&sources(&folder).iter().map(read).collect());
        assert!(arrows.values().any(|arrows| !arrows.is_empty()), "{} was not read", folder.display());
        let mut found = circles(&arrows);
        found.truncate(5);
        let told = found.join("\n");
        assert!(
            found.is_empty(),
            "{}: move what both need into a file below both:\n{told}",
            folder.display()
        );
    }
}

#[test]
fn a_circle_is_told_by_its_files_and_by_what_ties_them() {
    let tree = [
        ("lib.rs", "mod a;\nmod b;\nmod c;\nmod lone;\npub use b::B;"),
        ("a.rs", "use crate::{B as Other, lone};\npub struct A(Other);\nfn f() { lone::f() }"),
        ("b.rs", "pub struct B;\nfn f() { println!(\"{}\", super::c::inner::make()); }"),
        ("c/mod.rs", "pub mod inner;\nmod child;\npub struct C;\nfn f(_: child::D) {}\npub use child::D;"),
        ("c/inner.rs", "pub fn make() -> crate::a::A { todo!() }"),
        ("c/child.rs", "use super::C;\npub struct D(C);"),
        // Neither a comment nor a test ties, nor a re-export, nor another crate of the same name.
        (
            "lone.rs",
            "mod below;\npub use below::f;\npub struct L; // crate::a::A\n#[cfg(test)]\nuse crate::a::A;",
        ),
        ("lone/below.rs", "use b::B;\nuse super::L;\npub fn f() -> L { L }"),
    ];
    let sources = tree.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
    assert_eq!(
        circles(&arrows(&sources)),
        [
            "src/c/child.rs -> src/c/mod.rs (C) -> src/c/child.rs (D)",
            "src/a.rs -> src/b.rs (B) -> src/c/inner.rs (make) -> src/a.rs (A)",
        ]
    );
}
