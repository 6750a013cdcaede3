#include "base/list.h"

#include "test/test.h"

struct item {
    int number;
    struct rc_list link;
};

/* The numbers of a list as decimal digits. */
static int read_list(struct rc_list *list)
{
    int digits = 0;
    RC_LIST_EACH(at, following, list) {
        digits = digits * 10 + RC_CONTAINER(at, struct item, link)->number;
    }
    return digits;
}

static void keeps_the_order_of_both_ends(void)
{
    struct rc_list list;
    struct item items[] = {{.number = 1}, {.number = 2}, {.number = 3}};
    rc_list_init(&list);
    CHECK(rc_list_is_empty(&list));
    rc_list_append(&list, &items[0].link);
    rc_list_append(&list, &items[1].link);
    rc_list_prepend(&list, &items[2].link);
    CHECK(read_list(&list) == 312);
    CHECK(!rc_list_is_empty(&list));
}

static void removes_from_anywhere_and_twice(void)
{
    struct rc_list list;
    struct item items[] = {{.number = 1}, {.number = 2}, {.number = 3}};
    rc_list_init(&list);
    for (int i = 0; i < 3; i++)
        rc_list_append(&list, &items[i].link);
    rc_list_remove(&items[1].link);
    rc_list_remove(&items[1].link);
    CHECK(read_list(&list) == 13);
    rc_list_remove(&items[0].link);
    rc_list_remove(&items[2].link);
    CHECK(rc_list_is_empty(&list));
}

static void allows_removal_while_iterating(void)
{
    struct rc_list list;
    struct item items[] = {{.number = 1}, {.number = 2}, {.number = 3}, {.number = 4}};
    rc_list_init(&list);
    for (int i = 0; i < 4; i++)
        rc_list_append(&list, &items[i].link);
    RC_LIST_EACH(at, following, &list) {
        if (RC_CONTAINER(at, struct item, link)->number % 2 == 0)
            rc_list_remove(at);
    }
    CHECK(read_list(&list) == 13);
}

static void splices_behind_the_other_list(void)
{
    struct rc_list to, from;
    struct item items[] = {{.number = 1}, {.number = 2}, {.number = 3}, {.number = 4}};
    rc_list_init(&to);
    rc_list_init(&from);
    rc_list_splice(&to, &from);
    CHECK(rc_list_is_empty(&to));
    rc_list_append(&from, &items[0].link);
    rc_list_append(&from, &items[1].link);
    rc_list_splice(&to, &from);
    CHECK(rc_list_is_empty(&from) && read_list(&to) == 12);
    rc_list_append(&from, &items[2].link);
    rc_list_append(&from, &items[3].link);
    rc_list_splice(&to, &from);
    CHECK(rc_list_is_empty(&from) && read_list(&to) == 1234);
    CHECK(to.prev == &items[3].link);
}

int main(void)
{
    TEST(keeps_the_order_of_both_ends);
    TEST(removes_from_anywhere_and_twice);
    TEST(allows_removal_while_iterating);
    TEST(splices_behind_the_other_list);
    return test_result();
}
