import { assert, describe, it } from "@effect/vitest"
import { and, eq, inArray } from "drizzle-orm"
import {
  type AnyPgColumn,
  bigint,
  customType,
  foreignKey,
  integer,
  numeric,
  pgTable,
  primaryKey,
  text,
  timestamp,
  uuid
} from "drizzle-orm/pg-core"
import { Deferred, Effect, Fiber, Layer, Schema } from "effect"
import { Cacheme, MemoryStore, Node, Tag } from "../../src/index.ts"
import { Db, Model } from "../../src/drizzle/index.ts"
import { databases, on, tagsPublished } from "../support/databases.ts"
import { reasonOf } from "../support/reasonOf.ts"

const users = pgTable("users", { id: integer().primaryKey(), name: text() })
const books = pgTable("books", { id: integer().primaryKey(), title: text() })
const usersToBooks = pgTable(
  "users_to_books",
  {
    userId: integer("user_id")
      .notNull()
      .references(() => users.id, { onDelete: "cascade" }),
    bookId: integer("book_id")
      .notNull()
      .references(() => books.id),
    since: integer()
  },
  (table) => [primaryKey({ columns: [table.userId, table.bookId] })]
)
const follows = pgTable("follows", {
  follower: integer().references((): AnyPgColumn => users.id),
  followee: integer().references((): AnyPgColumn => users.id)
})
const Reading = Model.link(usersToBooks, { user: usersToBooks.userId, book: usersToBooks.bookId })
const Following = Model.link(follows, { follower: follows.follower, followee: follows.followee })

describe("Link", () => {
  it("has a tag for each row on each side, and two for the table", () => {
    assert.strictEqual(Reading.of({ user: 1 }).id, "@users_to_books:user_id=1")
    assert.strictEqual(Reading.of({ book: 2 }).id, "@users_to_books:book_id=2")
    assert.deepStrictEqual(Reading.of({ user: 1 }).carries, ["@users_to_books:?"])
    assert.deepStrictEqual(Reading.of({ user: 1 }).reaches, ["@users_to_books:*"])
    assert.strictEqual(Reading.all.id, "@users_to_books:*")
    assert.strictEqual(Reading.unknown.id, "@users_to_books:?")
    assert.strictEqual(Reading.table, usersToBooks)
    assert.strictEqual(Following.of({ follower: 1 }).id, "@follows:follower=1")
    assert.strictEqual(Following.of({ followee: 1 }).id, "@follows:followee=1")
  })

  describe("of", () => {
    it("takes an id as number, bigint or text", () => {
      for (const id of [7, 7n, "7"]) {
        assert.strictEqual(Reading.of({ user: id }).id, "@users_to_books:user_id=7")
      }
      const wide = pgTable("link_wide", { a: bigint({ mode: "bigint" }), b: bigint({ mode: "number" }) })
      const Wide = Model.link(wide, { a: wide.a, b: wide.b })
      assert.strictEqual(Wide.of({ a: 2n ** 60n }).id, "@link_wide:a=1152921504606846976")
      assert.strictEqual(Wide.of({ b: "9007199254740993" }).id, "@link_wide:b=9007199254740993")
      assert.strictEqual(Wide.of({ b: -1n }).id, "@link_wide:b=-1")
    })

    it("takes a row of the table that is referred to, also one with more columns", () => {
      const user: typeof users.$inferSelect = { id: 7, name: "Ann" }
      class Book {
        readonly id = 2
        readonly title = "Emma"
      }
      assert.strictEqual(Reading.of({ user }).id, "@users_to_books:user_id=7")
      assert.strictEqual(Reading.of({ book: new Book() }).id, "@users_to_books:book_id=2")
      assert.strictEqual(Following.of({ followee: user }).id, "@follows:followee=7")
    })

    it("takes the column that a foreign key refers to, however that was declared", () => {
      const people = pgTable("link_people", {
        id: integer().primaryKey(),
        tenant: integer(),
        key: uuid("uid")
      })
      const groups = pgTable("link_groups", { tenant: integer(), number: integer(), code: uuid() })
      const members = pgTable(
        "link_members",
        { personKey: uuid(), tenant: integer(), group: integer() },
        (table) => [
          // Of several keys with a column, the shortest tells what it is.
          foreignKey({
            columns: [table.tenant, table.personKey],
            foreignColumns: [groups.tenant, groups.code]
          }),
          foreignKey({ columns: [table.personKey], foreignColumns: [people.key] }),
          foreignKey({
            columns: [table.tenant, table.group],
            foreignColumns: [groups.tenant, groups.number]
          })
        ]
      )
      const Members = Model.link(members, { person: members.personKey, group: members.group })
      const key = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"
      assert.strictEqual(
        Members.of({ person: { id: 1, key } }).id,
        `@link_members:personKey=${key.toLowerCase()}`
      )
      assert.strictEqual(Members.of({ person: key }).id, Members.of({ person: { id: 1, key } }).id)
      assert.strictEqual(Members.of({ group: { tenant: 1, number: 3 } }).id, "@link_members:group=3")
      const reason = reasonOf(() => Members.of({ person: { id: 1 } }))
      assert.deepInclude(reason, {
        field: "person",
        expected: `a UUID, or a row of "link_people" with key`,
        actual: "an object whose key is missing"
      })
    })

    it("takes the id of a row where no foreign key is declared", () => {
      const free = pgTable("link_free", { a: integer(), b: text() })
      const Free = Model.link(free, { a: free.a, b: free.b })
      assert.strictEqual(Free.of({ a: { id: 1 } }).id, "@link_free:a=1")
      assert.strictEqual(Free.of({ b: { id: "x,y" } }).id, "@link_free:b=x%2Cy")
    })

    it("maps the values of a column of the program's own type as the column does", () => {
      const code = customType<{ data: string; driverData: number }>({
        dataType: () => "integer",
        toDriver: (value) => Number(value.slice(1)),
        fromDriver: (value) => `u${value}`
      })
      const coded = pgTable("link_coded", { a: code(), b: numeric(), c: numeric({ mode: "number" }) })
      const Coded = Model.link(coded, { a: coded.a, b: coded.b, c: coded.c })
      assert.strictEqual(Coded.of({ a: "u7" }).id, "@link_coded:a=7")
      assert.strictEqual(Coded.of({ a: { id: "u7" } }).id, "@link_coded:a=7")
      assert.strictEqual(Coded.of({ b: "7.10" }).id, "@link_coded:b=7.1")
      assert.strictEqual(Coded.of({ c: 7.1 }).id, "@link_coded:c=7.1")
    })

    it("refuses anything else, and names the side", () => {
      for (const [make, field, actual] of [
        // @ts-expect-error null is no user
        [() => Reading.of({ user: null }), "user", "null"],
        // @ts-expect-error a boolean is no id
        [() => Reading.of({ user: true }), "user", "true"],
        // @ts-expect-error a list is no row
        [() => Reading.of({ user: [1, 2] }), "user", "an object whose id is missing"],
        [() => Reading.of({ user: 1.5 }), "user", "1.5"],
        [() => Reading.of({ user: Number.NaN }), "user", "NaN"],
        [() => Reading.of({ user: 2 ** 60 }), "user", "1152921504606847000"],
        [() => Reading.of({ user: "" }), "user", `""`],
        [() => Reading.of({ user: "007" }), "user", `"007"`],
        [() => Reading.of({ user: " 7" }), "user", `" 7"`],
        [() => Reading.of({ user: "seven" }), "user", `"seven"`],
        [() => Reading.of({ book: { title: "Emma" } }), "book", "an object whose id is missing"],
        [() => Reading.of({ book: { id: null } }), "book", "an object whose id is null"],
        [() => Reading.of({ book: { id: 1.5 } }), "book", "an object whose id is 1.5"],
        [() => Reading.of({ book: { id: { id: 1 } } }), "book", `an object whose id is {"id":1}`],
        // @ts-expect-error several sides are several tags
        [() => Reading.of({ user: 1, book: 2 }), "user, book", `{"user":1,"book":2}`],
        // @ts-expect-error there is no such side
        [() => Reading.of({ reader: 1 }), "reader", `{"reader":1}`],
        // @ts-expect-error undefined is no user
        [() => Reading.of({ user: undefined }), "user", "{}"],
        // @ts-expect-error a side is missing
        [() => Reading.of({}), "", "{}"],
        // @ts-expect-error a side has a name
        [() => Reading.of(null), "", "null"]
      ] as const) {
        const reason = reasonOf(make)
        assert(reason._tag === "InvalidKey")
        assert.deepInclude(reason, { definition: `link "users_to_books"`, field, actual })
      }
      assert.strictEqual(
        reasonOf(() => Reading.of({ user: "x" })).message,
        `link "users_to_books": field "user" is "x", expected an integer, or a row of "users" with id`
      )
      // @ts-expect-error the id of a text column is no number
      const Texts = () => Model.link(named, { a: named.a, b: named.b }).of({ a: 1 })
      const named = pgTable("link_named", { a: text(), b: text() })
      assert.deepInclude(reasonOf(Texts), { _tag: "InvalidKey", field: "a", actual: "1" })
      assert.strictEqual(
        reasonOf(() => Model.link(named, { a: named.a, b: named.b }).of({ a: "x".repeat(1100) }))._tag,
        "InvalidKey"
      )
    })
  })

  describe("a table that has a model, too", () => {
    it("is told by the keys of both, each once", () => {
      const both = pgTable(
        "link_both",
        { userId: integer("user_id"), bookId: integer("book_id"), note: text() },
        (table) => [primaryKey({ columns: [table.userId, table.bookId] })]
      )
      const Both = Model.make(both, { keys: { byUser: ["userId"], byNote: ["note"] } })
      const known = Both.by({ userId: 1 })
      const Linked = Model.link(both, { user: both.userId, book: both.bookId })
      assert.strictEqual(Linked.of({ user: 1 }).id, known.id)
      const definition = Model.find("link_both")!
      assert.deepStrictEqual(
        definition.keys.map((columns) => columns.map(({ property }) => property)),
        [["userId"], ["note"], ["bookId"]]
      )
      assert.deepStrictEqual(
        definition.columns.map(({ property }) => property),
        ["bookId", "userId", "note"]
      )
      assert.deepStrictEqual(Model.changedIds(definition, { userId: "1", bookId: "2", note: null }), [
        "@link_both:*",
        "@link_both:book_id=2,user_id=1",
        "@link_both:user_id=1",
        "@link_both:note=%null",
        "@link_both:book_id=2"
      ])
      // @ts-expect-error only the link was told of this key
      assert.strictEqual(reasonOf(() => Both.by({ bookId: 2 }))._tag, "InvalidKey")
    })

    it.effect("is one definition to a cache, in whichever order they were made", () =>
      Effect.gen(function* () {
        const table = pgTable("link_first", { id: integer().primaryKey(), a: integer(), b: integer() })
        const Linked = Model.link(table, { a: table.a, b: table.b })
        yield* Cacheme.invalidate(Linked.of({ a: 1 }))
        const Made = Model.make(table, { keys: { byA: ["a"] } })
        yield* Cacheme.invalidate([Made.row({ id: 1 }), Linked.of({ a: 1 }), Made.all])
        Model.link(table, { b: table.b, a: table.a })
        yield* Cacheme.invalidate(Linked.all)
        // The same one, so that there is nothing to compare whenever a tag is met.
        assert.strictEqual(Linked.all[Tag.TypeId], Made.all[Tag.TypeId])
      }).pipe(Effect.provide(Layer.provide(Cacheme.layer(), MemoryStore.layer())))
    )
  })

  describe("bad definitions", () => {
    const plain = pgTable("link_plain", { a: integer(), b: integer(), at: timestamp() })

    it("fewer than two sides, a column of another table, one of another type, or one that is two sides", () => {
      for (const [make, field, actual] of [
        [() => Model.link(plain, {}), "sides", "none"],
        [() => Model.link(plain, { a: plain.a }), "sides", "a"],
        [
          // @ts-expect-error a column of another table
          () => Model.link(plain, { a: plain.a, b: users.id }),
          `side "b"`,
          `the column "id" of another table`
        ],
        // @ts-expect-error no column
        [() => Model.link(plain, { a: plain.a, b: "b" }), `side "b"`, `"b"`],
        [() => Model.link(plain, { a: plain.a, b: plain.at }), `side "b"`, `"at" of type timestamp`],
        [() => Model.link(plain, { a: plain.a, b: plain.a }), `side "b"`, `"a", which is the side "a"`]
      ] as const) {
        const reason = reasonOf(make)
        assert(reason._tag === "InvalidDefinition")
        assert.deepInclude(reason, { definition: `link "link_plain"`, field, actual })
      }
      assert.isUndefined(Model.find("link_plain"))
    })

    it("a side that is a volatile column, in whichever order it is told", () => {
      const first = pgTable("link_volatile1", { a: integer(), b: integer() })
      Model.make(first, { volatile: { stats: ["b"] } })
      const second = pgTable("link_volatile2", { a: integer(), b: integer() })
      Model.link(second, { a: second.a, b: second.b })
      for (const [make, table] of [
        [() => Model.link(first, { a: first.a, b: first.b }), "link_volatile1"],
        [() => Model.make(second, { volatile: { stats: ["b"] } }), "link_volatile2"]
      ] as const) {
        const reason = reasonOf(make)
        assert(reason._tag === "InvalidDefinition")
        assert.deepInclude(reason, { definition: `model "${table}"`, field: `volatile group "stats"` })
        assert.match(reason.actual, /^"b", a side of the link at .*Link\.test\.ts:\d+/)
      }
      assert.deepStrictEqual(Model.find("link_volatile1")!.keys, [])
      assert.strictEqual(Model.find("link_volatile2")!.volatile.size, 0)
    })

    it("two different links of one table; the same one again is fine", () => {
      Model.link(usersToBooks, { book: usersToBooks.bookId, user: usersToBooks.userId })
      const reason = reasonOf(() =>
        Model.link(usersToBooks, { reader: usersToBooks.userId, book: usersToBooks.bookId })
      )
      assert(reason._tag === "DefinitionConflict")
      assert.include(reason.name, "users_to_books")
      assert.match(reason.first, /Link\.test\.ts:\d+/)
      assert.match(reason.second, /Link\.test\.ts:\d+/)
      assert.strictEqual(reason.difference, "sides")
    })

    it("a link and a model that do not mean the same columns", () => {
      const one = pgTable("link_apart", { id: integer().primaryKey(), a: integer(), b: integer() })
      const other = pgTable("link_apart", { id: integer().primaryKey(), a: text(), b: integer() })
      Model.make(one, { keys: { byA: ["a"] } })
      const columns = reasonOf(() => Model.link(other, { a: other.a, b: other.b }))
      assert.deepInclude(columns, { _tag: "DefinitionConflict", difference: "columns" })
      const keyless = pgTable("link_apart", { a: integer(), b: integer() })
      const primary = reasonOf(() => Model.link(keyless, { a: keyless.a, b: keyless.b }))
      assert.deepInclude(primary, { _tag: "DefinitionConflict", difference: "primary key" })
    })
  })
})

describe("Link and Db.mutate", () => {
  const setUp = `
    create table users (id int primary key, name text);
    create table books (id int primary key, title text);
    create table users_to_books (
      user_id int not null references users on delete cascade, book_id int not null references books, since int,
      primary key (user_id, book_id)
    );
    create table follows (
      follower int references users on delete cascade, followee int references users on delete cascade
    );
    insert into users select i, 'user ' || i from generate_series(1, 4) i;
    insert into books select i, 'book ' || i from generate_series(1, 6) i;
    insert into users_to_books values (1, 1), (1, 2), (2, 2), (3, 3);
    insert into follows values (1, 2), (2, 1);
  `
  const ids = Schema.Array(Schema.Int)
  class ReadByNode extends Node.Class<ReadByNode>()("readBy", {
    key: { user: Schema.Int },
    value: ids,
    tags: ({ user }) => Reading.of({ user })
  }) {}
  class ReadersNode extends Node.Class<ReadersNode>()("readers", {
    key: { book: Schema.Int },
    value: ids,
    tags: ({ book }) => Reading.of({ book })
  }) {}
  class CountNode extends Node.Class<CountNode>()("readings", {
    key: {},
    value: Schema.Int,
    tags: () => Reading.all
  }) {}
  class FolloweesNode extends Node.Class<FolloweesNode>()("followees", {
    key: { user: Schema.Int },
    value: ids,
    tags: ({ user }) => Following.of({ follower: user })
  }) {}
  class FollowersNode extends Node.Class<FollowersNode>()("followers", {
    key: { user: Schema.Int },
    value: ids,
    tags: ({ user }) => Following.of({ followee: user })
  }) {}

  const readBy = (user: number) =>
    Db.query((db) =>
      db.select().from(usersToBooks).where(eq(usersToBooks.userId, user)).orderBy(usersToBooks.bookId)
    ).pipe(
      Effect.map((rows) => rows.map((row) => row.bookId)),
      Cacheme.memoize(new ReadByNode({ user }))
    )
  const readers = (book: number) =>
    Db.query((db) =>
      db.select().from(usersToBooks).where(eq(usersToBooks.bookId, book)).orderBy(usersToBooks.userId)
    ).pipe(
      Effect.map((rows) => rows.map((row) => row.userId)),
      Cacheme.memoize(new ReadersNode({ book }))
    )
  const count = Db.query((db) => db.$count(usersToBooks)).pipe(Cacheme.memoize(new CountNode()))
  const followees = (user: number) =>
    Db.query((db) =>
      db.select().from(follows).where(eq(follows.follower, user)).orderBy(follows.followee)
    ).pipe(
      Effect.map((rows) => rows.map((row) => row.followee!)),
      Cacheme.memoize(new FolloweesNode({ user }))
    )
  const followers = (user: number) =>
    Db.query((db) =>
      db.select().from(follows).where(eq(follows.followee, user)).orderBy(follows.follower)
    ).pipe(
      Effect.map((rows) => rows.map((row) => row.follower!)),
      Cacheme.memoize(new FollowersNode({ user }))
    )

  const someUsers = [1, 2, 3, 4]
  const someBooks = [1, 2, 3, 4, 5, 6]
  /** All answers: what each user reads, who reads each book, and how many links there are. */
  const everything = Effect.all({
    readBy: Effect.forEach(someUsers, readBy),
    readers: Effect.forEach(someBooks, readers),
    count
  })
  const isAnswered = (node: Node.Any) => Effect.map(Cacheme.explain(node), ({ answered }) => answered)
  /** The users and books whose answers are stale. */
  const stale = Effect.gen(function* () {
    const isStale = (node: Node.Any) => Effect.map(isAnswered(node), (answered) => !answered)
    return {
      users: yield* Effect.filter(someUsers, (user) => isStale(new ReadByNode({ user }))),
      books: yield* Effect.filter(someBooks, (book) => isStale(new ReadersNode({ book })))
    }
  })
  const link = (user: number, ...books: ReadonlyArray<number>) =>
    Db.mutate((db) => db.insert(usersToBooks).values(books.map((bookId) => ({ userId: user, bookId }))))

  const onPglite = (name: string, test: Effect.Effect<void, unknown, Db | Cacheme>) =>
    it.effect(name, () => on(databases[0], setUp, () => test))

  onPglite(
    "adding many from the one side makes both sides stale, and nothing else",
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* everything, {
        readBy: [[1, 2], [2], [3], []],
        readers: [[1], [1, 2], [3], [], [], []],
        count: 4
      })
      yield* link(4, 2, 5, 6)
      assert.deepStrictEqual(yield* stale, { users: [4], books: [2, 5, 6] })
      assert.deepStrictEqual(yield* everything, {
        readBy: [[1, 2], [2], [3], [2, 5, 6]],
        readers: [[1], [1, 2, 4], [3], [], [4], [4]],
        count: 7
      })
    })
  )

  onPglite(
    "adding many from the other side as well",
    Effect.gen(function* () {
      yield* everything
      yield* Db.mutate((db) =>
        db.insert(usersToBooks).values([2, 3, 4].map((userId) => ({ userId, bookId: 6 })))
      )
      assert.deepStrictEqual(yield* stale, { users: [2, 3, 4], books: [6] })
      assert.deepStrictEqual((yield* everything).readers, [[1], [1, 2], [3], [], [], [2, 3, 4]])
    })
  )

  onPglite(
    "removing many makes both sides stale, from either side",
    Effect.gen(function* () {
      yield* link(1, 3, 4, 5)
      yield* everything
      yield* Db.mutate((db) =>
        db
          .delete(usersToBooks)
          .where(and(eq(usersToBooks.userId, 1), inArray(usersToBooks.bookId, [3, 4, 6])))
      )
      assert.deepStrictEqual(yield* stale, { users: [1], books: [3, 4] })
      assert.deepStrictEqual((yield* everything).readBy, [[1, 2, 5], [2], [3], []])
      yield* Db.mutate((db) => db.delete(usersToBooks).where(eq(usersToBooks.bookId, 2)))
      assert.deepStrictEqual(yield* stale, { users: [1, 2], books: [2] })
      assert.deepStrictEqual((yield* everything).readBy, [[1, 5], [], [3], []])
    })
  )

  onPglite(
    "clearing makes stale whoever was linked",
    Effect.gen(function* () {
      yield* everything
      yield* Db.mutate((db) => db.delete(usersToBooks).where(eq(usersToBooks.userId, 1)))
      assert.deepStrictEqual(yield* stale, { users: [1], books: [1, 2] })
      assert.deepStrictEqual(yield* everything, {
        readBy: [[], [2], [3], []],
        readers: [[], [2], [3], [], [], []],
        count: 2
      })
    })
  )

  onPglite(
    "replacing in a transaction makes stale what was linked and what is",
    Effect.gen(function* () {
      yield* everything
      yield* Db.mutate((db) => db.delete(usersToBooks).where(eq(usersToBooks.userId, 1))).pipe(
        Effect.andThen(link(1, 2, 5)),
        Db.transaction()
      )
      assert.deepStrictEqual(yield* stale, { users: [1], books: [1, 2, 5] })
      assert.deepStrictEqual((yield* everything).readers, [[], [1, 2], [3], [], [1], []])
    })
  )

  onPglite(
    "moving a link makes stale where it was and where it is",
    Effect.gen(function* () {
      yield* everything
      yield* Db.mutate((db) => db.update(usersToBooks).set({ bookId: 6 }).where(eq(usersToBooks.bookId, 3)))
      assert.deepStrictEqual(yield* stale, { users: [3], books: [3, 6] })
      yield* everything
      yield* Db.mutate((db) => db.update(usersToBooks).set({ userId: 4 }).where(eq(usersToBooks.userId, 2)))
      assert.deepStrictEqual(yield* stale, { users: [2, 4], books: [2] })
      assert.deepStrictEqual((yield* everything).readBy, [[1, 2], [], [6], [2]])
    })
  )

  onPglite(
    "a link that a foreign key removes makes everything stale that rests on links",
    Effect.gen(function* () {
      yield* everything
      yield* Db.mutate((db) => db.delete(users).where(eq(users.id, 1)))
      const { readBy, readers, count } = yield* everything
      assert.deepStrictEqual(readBy, [[], [2], [3], []])
      assert.deepStrictEqual(readers, [[], [2], [3], [], [], []])
      assert.strictEqual(count, 2)
    })
  )

  onPglite(
    "rows that are linked with one another have two sides",
    Effect.gen(function* () {
      const all = Effect.all({
        followees: Effect.forEach(someUsers, followees),
        followers: Effect.forEach(someUsers, followers)
      })
      assert.deepStrictEqual(yield* all, {
        followees: [[2], [1], [], []],
        followers: [[2], [1], [], []]
      })
      yield* Db.mutate((db) =>
        db.insert(follows).values([
          { follower: 1, followee: 3 },
          { follower: 1, followee: 4 }
        ])
      )
      assert.isFalse(yield* isAnswered(new FolloweesNode({ user: 1 })))
      assert.isTrue(yield* isAnswered(new FollowersNode({ user: 1 })))
      assert.isTrue(yield* isAnswered(new FolloweesNode({ user: 3 })))
      assert.isFalse(yield* isAnswered(new FollowersNode({ user: 3 })))
      assert.deepStrictEqual(yield* all, {
        followees: [[2, 3, 4], [1], [], []],
        followers: [[2], [1], [1], [1]]
      })
      yield* Db.mutate((db) => db.delete(follows).where(eq(follows.followee, 1)))
      assert.isFalse(yield* isAnswered(new FollowersNode({ user: 1 })))
      assert.isFalse(yield* isAnswered(new FolloweesNode({ user: 2 })))
      assert.isTrue(yield* isAnswered(new FolloweesNode({ user: 1 })))
      assert.deepStrictEqual((yield* all).followees, [[2, 3, 4], [], [], []])
    })
  )

  onPglite(
    "nothing is stale before the commit",
    Effect.gen(function* () {
      yield* everything
      tagsPublished()
      const written = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const writer = yield* link(4, 2, 5).pipe(
        Effect.andThen(Deferred.succeed(written, undefined)),
        Effect.andThen(Deferred.await(go)),
        Db.transaction(),
        Effect.forkChild
      )
      yield* Deferred.await(written)
      assert.deepStrictEqual(tagsPublished(), [])
      assert.deepStrictEqual(yield* stale, { users: [], books: [] })
      assert.deepStrictEqual(yield* readBy(4), [])
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.join(writer)
      assert.deepStrictEqual(yield* stale, { users: [4], books: [2, 5] })
      assert.deepStrictEqual(yield* readBy(4), [2, 5])
    })
  )

  onPglite(
    "nothing is stale after a rollback",
    Effect.gen(function* () {
      yield* everything
      const failed = yield* link(4, 2, 5).pipe(
        Effect.andThen(Effect.fail("no")),
        Db.transaction(),
        Effect.flip
      )
      assert.strictEqual(failed, "no")
      assert.deepStrictEqual(tagsPublished(), [])
      assert.deepStrictEqual(yield* stale, { users: [], books: [] })
      assert.deepStrictEqual(yield* readBy(4), [])
      // A statement that breaks a key changes nothing, either.
      yield* Effect.flip(link(1, 4, 1))
      assert.deepStrictEqual(yield* stale, { users: [], books: [] })
    })
  )
})
