//! Parser tests over small texts.

use super::ast::{Base, Init, Linkage, Number, Operand, Space, Statement};
use super::{Ty, parse};

const HEAD: &str = ".version 9.0\n.target sm_90\n.address_size 64\n";

fn body(statements: &str) -> Vec<Statement<'static>> {
    let text = Box::leak(format!("{HEAD}.entry k() {{ {statements} }}").into_boxed_str());
    parse(text).unwrap().functions.remove(0).body.unwrap()
}

fn operands(instruction: &str) -> Vec<Operand<'static>> {
    match body(instruction).remove(0) {
        Statement::Instruction(instruction) => instruction.operands,
        other => panic!("not an instruction: {other:?}"),
    }
}

#[test]
fn entry_with_parameters_and_directives() {
    let text = format!(
        "{HEAD}.visible .entry k(\n .param .u64 .ptr .global .align 1 k_param_0,\n .param .align 8 .b8 k_param_1[40])\n\
         .maxntid 256, 1, 1\n.minnctapersm 2\n.explicitcluster\n.reqnctapercluster 2, 1, 1\n{{ ret; }}"
    );
    let module = parse(&text).unwrap();
    let function = &module.functions[0];
    assert!(function.entry);
    assert_eq!(function.linkage, Linkage::Visible);
    assert_eq!(function.params[0].ty, Ty::U64);
    assert_eq!(function.params[1].bytes(), Some(40));
    assert_eq!(function.params[1].align, 8);
    assert_eq!(function.max_threads, Some([256, 1, 1]));
    assert_eq!(function.required_cluster, Some([2, 1, 1]));
    assert!(function.explicit_cluster);
}

#[test]
fn variables_with_initialisers() {
    let text = format!(
        "{HEAD}.global .align 4 .b8 a[4] = {{1, 2, 0xFF, -1}};\n.const .f32 c = 0f3F800000;\n\
         .extern .shared .align 16 .b8 s[];\n.global .u64 p[2] = {{generic(a)+4, a}};\n\
         .global .b8 m[2] = {{0xFF(a), 0xFF00(a+8)}};\n.visible .global .attribute(.managed) .align 4 .u32 x;"
    );
    let module = parse(&text).unwrap();
    let v = &module.variables;
    assert_eq!(v[0].bytes(), Some(4));
    assert_eq!(v[2].bytes(), None);
    assert_eq!((v[2].space, v[2].linkage), (Space::Shared, Linkage::Extern));
    let Some(Init::List(list)) = &v[3].init else { panic!() };
    assert!(matches!(list[0], Init::Address { name: "a", offset: 4, generic: true, mask: None, .. }));
    let Some(Init::List(list)) = &v[4].init else { panic!() };
    assert!(matches!(list[1], Init::Address { name: "a", offset: 8, mask: Some(0xff00), .. }));
    assert!(v[5].managed);
}

#[test]
fn operand_shapes() {
    assert_eq!(
        operands("ld.global.u32 %r1, [%rd1+-8];")[1],
        Operand::Address { base: Base::Name("%rd1"), offset: -8 }
    );
    assert_eq!(operands("mov.u32 %r1, %tid.x;")[1], Operand::Member("%tid", "x"));
    assert_eq!(operands("mov.f32 %f1, 0f3F800000;")[1], Operand::Number(Number::F32(0x3f80_0000)));
    assert_eq!(operands("mov.u32 %r1, (1+2)*3-1;")[1], Operand::Number(Number::Int(8)));
    assert_eq!(operands("mov.u64 %r1, sym+16;")[1], Operand::Offset("sym", 16));
    assert_eq!(operands("mov.s32 %r1, -1;")[1], Operand::Number(Number::Int(u64::MAX)));
    assert!(matches!(&operands("setp.lt.s32 %p1|%p2, %r1, 3;")[0], Operand::Pair(..)));
    assert!(
        matches!(&operands("ld.global.v2.u32 {%r1,_}, [a];")[0], Operand::Vector(v) if v[1] == Operand::Sink)
    );
    assert!(matches!(&operands("call.uni (r), f, (a, 5);")[2], Operand::Group(v) if v.len() == 2));
    assert!(matches!(&operands("call.uni (r), f, (5, a);")[2], Operand::Group(v) if v.len() == 2));
    assert!(
        matches!(&operands("tex.2d.v4.f32.f32 {a,b,c,d}, [t, {x,y}];")[1], Operand::Handle(v) if v.len() == 2)
    );
    assert_eq!(operands("selp.u32 a, b, c, !%p1;")[3], Operand::Not("%p1"));
}

#[test]
fn statements_of_every_kind() {
    let list = body(
        ".reg .pred %p<3>; .reg .b32 a, b; .local .align 8 .b8 d[16]; { .param .b32 p0; } \
         L1: bra.uni L1;\n ts: .branchtargets L1, L2; proto: .callprototype (.param .b32 _) _ (.param .b64 _);\n\
         .loc 1 2 3\n .pragma \"nounroll\"; @!%p1 bra L1;",
    );
    assert!(
        matches!(&list[0], Statement::Registers { ty: Ty::Pred, names, .. } if names[0] == ("%p", Some(3)))
    );
    assert!(matches!(&list[1], Statement::Registers { names, .. } if names.len() == 2));
    assert!(matches!(&list[3], Statement::Block(inner) if inner.len() == 1));
    assert!(matches!(&list[4], Statement::Label { name: "L1", .. }));
    assert!(matches!(&list[6], Statement::BranchTargets { targets, .. } if targets.len() == 2));
    assert!(matches!(&list[7], Statement::CallPrototype { returns, .. } if returns.len() == 1));
    assert!(matches!(&list[8], Statement::Instruction(i) if i.guard == Some(("%p1", true))));
}

#[test]
fn errors_name_the_place() {
    let error = parse(".version 9.0\n.target sm_90\n.entry k() {\n  add.u32 %r1 %r2;\n}").unwrap_err();
    assert_eq!((error.line, error.column), (4, 15), "{error}");
    assert!(error.message.contains("expected `;`"), "{error}");
    assert!(parse(".target sm_90").unwrap_err().message.contains(".version"));
    assert!(parse(".version 9.0\n.entry k() {").is_err());
    assert!(parse(".version 9.0\n.address_size 32").unwrap_err().message.contains("32"));
    let deep = format!(".version 9.0 .entry k() {{ {}", "{".repeat(100_000));
    assert!(parse(&deep).unwrap_err().message.contains("nested"));
    let deep = format!(".version 9.0 .global .u32 x = {}1;", "-".repeat(100_000));
    assert!(parse(&deep).is_err());
}

#[test]
fn debug_sections_are_skipped() {
    let text = format!(
        "{HEAD}.file 1 \"a.cu\"\n.section .debug_str\n{{\ninfo:\n.b8 1,2\n{{ }}\n}}\n.entry k() {{ ret; }}"
    );
    assert_eq!(parse(&text).unwrap().functions.len(), 1);
}
