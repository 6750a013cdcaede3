#include "base/error.h"

#include <string.h>

#include "test/test.h"

static void has_a_text_of_its_own_for_each_error(void)
{
    for (int error = 0; error >= RC_ERR_REFUSED; error--) {
        CHECK(strlen(rc_strerror(error)) > 0);
        CHECK(strcmp(rc_strerror(error), rc_strerror(RC_ERR_REFUSED - 1)) != 0);
        for (int other = 0; other > error; other--)
            CHECK(strcmp(rc_strerror(error), rc_strerror(other)) != 0);
    }
}

static void says_so_where_it_knows_no_text(void)
{
    CHECK(strcmp(rc_strerror(RC_ERR_REFUSED - 1), "unknown error") == 0);
    CHECK(strcmp(rc_strerror(1), "unknown error") == 0);
}

int main(void)
{
    TEST(has_a_text_of_its_own_for_each_error);
    TEST(says_so_where_it_knows_no_text);
    return test_result();
}
