//! The built library's ELF symbols against the table: a name that is missing would be found in no program's tests, one too
//! many would shadow a symbol of the program's own.

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSymbol as _};
    use pxos_protocol::api::ROWS;
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    /// The library that cargo built for this test.
    fn library() -> PathBuf {
        let test = std::env::current_exe().unwrap();
        let folders = test.ancestors().skip(1).take(2);
        let found = folders.map(|folder| folder.join("libpxshim.so")).filter(|path| path.exists());
        let built = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).unwrap();
        found.max_by_key(built).expect("cargo builds the library before its tests")
    }

    /// What is exported beside the table: the functions of `pxos.h`, and those that open files and ask about them (the stub's files are found by
    /// them; every other file goes on to the C library).
    const BESIDE: [&str; 40] = [
        "__fxstat",
        "__fxstat64",
        "__fxstatat",
        "__fxstatat64",
        "__lxstat",
        "__lxstat64",
        "__open64_2",
        "__open_2",
        "__openat64_2",
        "__openat_2",
        "__xstat",
        "__xstat64",
        "access",
        "eaccess",
        "euidaccess",
        "faccessat",
        "fopen",
        "fopen64",
        "fstat",
        "fstat64",
        "fstatat",
        "fstatat64",
        "lstat",
        "lstat64",
        "open",
        "open64",
        "openat",
        "openat64",
        "px_alloc",
        "px_command",
        "px_compile_primitive",
        "px_copy_to_device",
        "px_copy_to_host",
        "px_free",
        "px_query_status",
        "px_query_submission",
        "px_submit_primitive",
        "stat",
        "stat64",
        "statx",
    ];

    #[test]
    fn the_library_exports_the_table_and_what_is_named_here() {
        let bytes = std::fs::read(library()).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let exported: BTreeSet<&str> = file
            .dynamic_symbols()
            .filter(|symbol| symbol.is_definition() && symbol.is_global())
            .filter_map(|symbol| symbol.name().ok())
            .collect();
        let table: BTreeSet<&str> =
            ROWS.iter().flat_map(|row| [Some(row.name), row.twin]).flatten().chain(BESIDE).collect();
        let missing: Vec<_> = table.difference(&exported).collect();
        assert!(missing.is_empty(), "in the table, not exported: {missing:?}");
        let surplus: Vec<_> = exported.difference(&table).collect();
        assert!(surplus.is_empty(), "exported, not in the table: {surplus:?}");
    }
}
