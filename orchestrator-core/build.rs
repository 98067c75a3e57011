//! Tells the crate whether other crates link to generic code that is compiled in it: the compiler lets them at low levels of
//! optimisation only.
#![expect(clippy::disallowed_methods, reason = "this is how cargo and a build script talk")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(shares_generics)");
    if std::env::var("OPT_LEVEL").is_ok_and(|level| matches!(&*level, "0" | "1" | "s" | "z")) {
        println!("cargo::rustc-cfg=shares_generics");
    }
}
